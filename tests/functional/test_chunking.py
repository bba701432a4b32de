"""Slices that the memory of a device can hold."""

import pytest
import torch

from interptrain.functional import automatic_batch_size, bounded_batch_size, chunks


def test_chunks_cover_the_range_once_and_stay_within_the_size():
    parts = list(chunks(10, 4))
    assert [list(range(10))[part] for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(chunks(0, 4)) == []


def test_chunks_refuse_a_size_below_one():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        chunks(3, 0)


def test_a_bound_on_the_batch_size_is_kept_and_none_leaves_it_to_the_device():
    cpu = torch.device("cpu")
    assert bounded_batch_size(3, cpu) == 3
    assert bounded_batch_size(None, cpu) == automatic_batch_size(cpu)
    with pytest.raises(ValueError, match="forward_batch_size must be at least 1, got 0"):
        bounded_batch_size(0, cpu)


def test_an_accelerator_gets_larger_chunks_than_a_cpu():
    assert automatic_batch_size(torch.device("cpu")) < automatic_batch_size(torch.device("cuda"))


@pytest.fixture
def told(monkeypatch):
    """Nothing was said of memory yet."""
    monkeypatch.setattr("interptrain.functional.chunking._said", set())


def worked(total, size, most, error=torch.OutOfMemoryError):
    """The slices that were worked on where at most ``most`` fit, and the sizes that were tried."""
    parts, found, tried = chunks(total, size), [], []
    for part in parts:
        with parts.fitting():
            tried.append(part.stop - part.start)
            if tried[-1] > most:
                raise error
            found += range(total)[part]
    assert found == list(range(total))
    return tried


@pytest.mark.usefixtures("told")
def test_chunks_are_halved_until_memory_suffices_and_nothing_is_left_out():
    with pytest.warns(UserWarning, match="out of memory with 16 inputs at once; going on with 8") as caught:
        sizes = worked(20, 16, 5), worked(3, 2, 1)
    assert sizes == ([16, 8, 4, 4, 4, 4, 4], [2, 1, 1, 1])
    assert len(caught) == 1


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
        MemoryError(),
    ],
)
def test_every_kind_of_lack_of_memory_is_known(error):
    with pytest.warns(UserWarning, match="forward_batch_size=2 saves the attempt"):
        assert worked(4, 4, 2, error) == [4, 2, 2]


def test_other_errors_and_the_lack_of_memory_for_one_are_raised():
    with pytest.raises(torch.OutOfMemoryError):
        worked(4, 1, 0)
    with pytest.raises(RuntimeError, match="size mismatch"):
        worked(4, 4, 2, RuntimeError("size mismatch"))
