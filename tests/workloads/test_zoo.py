"""Programs made with other libraries: traced, planned and verified at the tiny size; left out where one is missing."""

import pytest
from test_all_workloads import check_planned
from test_workloads_registry import check_workload

from memplan.cli.main import main
from memplan.compiler.errors import MemplanError
from memplan.workloads import get, left_out, names, registry, workload
from memplan.workloads.registry import Built, num_parameters

# One of a library, but for those that are slow to import.
SAMPLE = ("equinox_encoder_infer", "haiku_lstm_infer")

NAMES = [each.name for each in registry._registry if each.needs]


def importing(name: str) -> None:
    for library in registry._registry.get(name).needs:
        pytest.importorskip(library)


@pytest.mark.parametrize("name", SAMPLE)
def test_a_plan_is_valid(name: str) -> None:
    importing(name)
    check_planned(name, tiny=True)


@pytest.mark.slow  # test_all_workloads.py has the real sizes
@pytest.mark.parametrize("name", NAMES)
def test_all(name: str) -> None:
    importing(name)
    check_workload(name)
    check_planned(name, tiny=True)


@pytest.mark.slow
def test_the_networks_are_those_of_the_papers() -> None:
    """Parameters as the papers, or the libraries' own pages, state them."""
    pytest.importorskip("haiku")
    assert num_parameters(get("haiku_resnet50_infer").build()) == 25_557_032  # torchvision's resnet50 has as many
    assert num_parameters(get("haiku_mobilenet_infer").build()) == pytest.approx(4.2e6, rel=0.02)


def test_there_are_enough() -> None:
    assert len(NAMES) >= 15
    assert {library for name in NAMES for library in registry._registry.get(name).needs} >= {
        "flax", "haiku", "equinox", "diffrax", "numpyro", "optax",
    }  # fmt: skip


def test_what_is_not_installed_is_left_out(registries: None, capfd: pytest.CaptureFixture[str]) -> None:
    @workload("nothing", family="graph", source="a test", needs=("json", "no_such_library"))
    def without_library(tiny: bool = False) -> Built:
        raise AssertionError("is not built")

    assert "without_library" in left_out()
    assert "without_library" not in names()
    with pytest.raises(MemplanError, match=r"needs no_such_library: pip install 'memplan\[zoo\]'"):
        get("without_library")
    assert main(["workloads"]) == 0
    out, err = capfd.readouterr()
    assert "without_library" not in out
    assert (
        err
        == f"memplan: {len(left_out())} workloads are left out, made with other libraries: pip install 'memplan[zoo]'\n"
    )
