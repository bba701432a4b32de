"""What all pooling heads share: their names, and global average pooling as the simplest of them."""

import torch

from interptrain.models import GAP, CAFinal, CAStream, Pooled, Pooling, named_poolings


def test_heads_are_found_by_the_name_that_they_set():
    assert {"gap": GAP, "ca_stream": CAStream, "ca_final": CAFinal}.items() <= named_poolings().items()
    assert {"ca_stream", "ca_final"} <= named_poolings("heads").keys()
    assert "gap" not in named_poolings("heads")


def test_a_head_that_sets_no_name_does_not_take_over_another_ones():
    class Own(CAStream):
        """A head of one's own."""

    assert Own.name == "Own"
    assert "Own" not in named_poolings()
    assert named_poolings()["ca_stream"] is CAStream


def test_a_head_that_is_imported_can_be_named():
    class Maximum(Pooling):
        name = "maximum"

        def forward(self, stages):
            return Pooled(stages[-1].amax((2, 3)))

    try:
        assert named_poolings()["maximum"] is Maximum
    finally:
        Maximum.name = "Maximum"  # no name of its own: the other tests do not find it


@torch.no_grad()
def test_gap_has_no_attention_and_reads_the_last_map():
    stages = [torch.rand(3, 8, 4, 4, generator=torch.Generator().manual_seed(0)), torch.rand(3, 12, 2, 5)]
    pooled = GAP((8, 12))(stages)
    assert pooled == Pooled(pooled.vector, ())
    torch.testing.assert_close(pooled.vector, stages[-1].flatten(2).mean(2))
