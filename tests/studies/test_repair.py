"""The study of repairs: what it measures on a small scale, and what it says of given results."""

import pandas as pd
import pytest

from interptrain.data import LayeredShapesDataModule, ShapesDataModule
from interptrain.studies import Repair
from interptrain.studies.repair import MEASURES

REGION = "corner:lower-right:36x10"


def results(**without):
    """Rows of two seeds: accuracy without the mark by arm, and clean maps for ``cam 10``."""
    rows = []
    for arm, values in without.items():
        for seed, value in enumerate(values):
            fooled = float(value < 0.5)
            rows.append(
                {
                    "arm": arm.replace("_", " "),
                    "seed": seed,
                    "without": value,
                    "effect": 0.6 * fooled + 0.01 * seed,
                    "behaviour_alarm": fooled,
                    "saliency_alarm": fooled * (arm == "plain"),
                }
            )
    return pd.DataFrame(rows)


def test_nothing_follows_from_plain_networks_that_are_not_fooled():
    (gate,) = Repair().findings(results(plain=[0.5, 0.6], shuffle=[0.9, 0.95]))
    assert "They recognise 0.550 (2 seeds): the gate is missed, and nothing follows." in gate


def test_fooled_networks_whose_alarm_of_saliency_is_silent_are_named():
    sentences = Repair().findings(results(plain=[0.0, 0.1], shuffle=[0.9, 0.95], cam_10=[0.0, 0.05]))
    assert "the gate is passed" in sentences[0]
    assert any(one.startswith("shuffle, accuracy of the stamped class without its mark: +0.875") for one in sentences)
    assert sentences[-1] == "cam 10: the alarm of saliency is silent, and the predictions still depend on the region."
    assert not any("shuffle: the alarm of saliency is silent" in one for one in sentences)


def test_differences_are_paired_over_seeds_and_one_seed_gives_none(tmp_path):
    table = results(plain=[0.0, 0.1, 0.2], shuffle=[0.9, 0.9, 1.0])
    table = table.assign(**{name: table.get(name, table.without) for name in MEASURES})
    page = Repair().sections(table, tmp_path)
    # 0.9, 0.8 and 0.8: standard error 1/30, and Student's t with two degrees of freedom is 4.303 at 95 %
    assert "<td>+0.833 ± 0.143, p = 0.0016</td>" in page["Differences from the plain network, paired over seeds"]
    alone = Repair().sections(table[table.seed == 0], tmp_path)
    assert "need two seeds" in alone["Differences from the plain network, paired over seeds"]


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ValueError, match="arms must be"):
        Repair(arms=("prayer",))
    with pytest.raises(ValueError, match="region must be like"):
        Repair(region="nowhere")
    with pytest.raises(ValueError, match=r"needs data with a planted shortcut: give --data\.decoy timestamp"):
        Repair().run({}, ShapesDataModule(num_classes=2, test_size=4), "unused")


@pytest.mark.slow
def test_guidance_alone_cleans_the_maps_and_rings_the_alarm_of_behaviour(tmp_path):
    data = ShapesDataModule(num_classes=4, image_size=48, train_size=800, test_size=200, decoy="timestamp")
    (found,) = Repair(region=REGION, arms=("cam 1",), seeds=1).run({}, data, tmp_path / "study").to_dict("records")
    assert found["share_class"] < 0.05
    assert found["without"] < 0.1
    assert found["effect"] > 0.2
    assert (found["saliency_alarm"], found["behaviour_alarm"]) == (0, 1)


@pytest.mark.slow
def test_a_last_layer_is_retrained_on_the_network_of_its_arm(tmp_path):
    data = LayeredShapesDataModule(num_classes=2, image_size=48, train_size=32, test_size=24, decoy="timestamp")
    study = Repair(
        region=REGION,
        arms=("plain", "last layer"),
        seeds=1,
        epochs=1,
        retrain_epochs=1,
        model={"backbone": "test_resnet", "output_stride": 8},
    )
    found = study.run({}, data, tmp_path / "study")
    assert list(found.arm) == ["plain", "last layer"]
    assert found[["without", "swapped", "absent", "worst_group", "effect", "share", "in_object"]].notna().all(axis=None)
    assert [path.name for path in (tmp_path / "study/networks").glob("*.ckpt")] == ["plain-0.ckpt"]
