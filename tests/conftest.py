"""Fixtures that several tests share: phantoms, real radiographs where they are at hand, and servers."""

from __future__ import annotations

import gc
import inspect
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.shared_folders import folder_of_run, made_once

if TYPE_CHECKING:
    from support.loopback import Gate
    from support.model_folders import ModelFolders
    from support.tracking_server import WebhookServer
    from support.trained_models import SmallTraining

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Each core has its worker: further threads would only wait for each other, spinning.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS"):
    os.environ.setdefault(_name, "1")

# All servers of the tests are on this machine, and no proxy leads there.
for _name in [name for name in os.environ if name.lower() in {"http_proxy", "https_proxy", "all_proxy"}]:
    del os.environ[_name]

folder_of_run()  # made before the workers start, which then share it

pytest_plugins = ["support.server_fixtures"]

REPOSITORY = Path(__file__).parents[1]
REAL_DATA = REPOSITORY.parent / "shared" / "data"


LONGEST = (
    "test_parity", "test_killed_at_every", "e2e", "test_walkthrough", "integration", "test_region_training",
    "test_backends", "test_cut_off_decision", "test_detector.py", "test_regions.py", "test_session", "test_loop.py",
)  # fmt: skip
"""Files that take minutes begin first: no worker is left with one at the end."""
TOGETHER = ("tests/integration/",)
"""Folders whose files stay on one worker, as each file does: starting their servers twice would take half a minute."""


def pytest_configure() -> None:
    """Hardly anything that importing makes is garbage: it is not looked for meanwhile, and never again among it."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: next((n for n, part in enumerate(LONGEST) if part in str(item.path)), len(LONGEST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a fifth of the time, tests wait for servers, browsers and clocks."""
    from cxr.cpu import available_cores

    return available_cores() + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With ``--dist loadfile``, share out files and the folders that stay together."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((folder for folder in TOGETHER if nodeid.startswith(folder)), super()._split_scope(nodeid))

    return Scheduling(config, log)


@pytest.fixture(scope="module", autouse=True)
def process_is_as_before_after_the_file() -> Iterator[None]:
    """What a service sets in its environment, or a page as the main module, does not reach the tests of other files."""
    environment, main = dict(os.environ), sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="session", autouse=True)
def stack_without_sources() -> Iterator[None]:
    """KFP's compiler takes the whole stack again and again, for a name; the source of each frame takes it seconds."""

    def stack(context: int = 0) -> list[inspect.FrameInfo]:
        frames, frame = [], inspect.currentframe()
        while frame := frame.f_back if frame is not None else None:
            code = frame.f_code
            frames.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None))
        return frames

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect, "stack", stack)
        yield


@pytest.fixture(scope="session", autouse=True)
def yaml_is_read_by_libyaml() -> Iterator[None]:
    """KFP and the tests read long files with ``yaml.safe_load``, which in Python takes ten times as long."""
    import yaml

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "SafeLoader", getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        yield


@pytest.fixture(scope="session", autouse=True)
def descriptions_of_s3_are_read_once() -> Iterator[None]:
    """Each session of boto3 reads a megabyte of JSON."""
    import botocore.session

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", cache(botocore.session.create_loader))
        yield


@pytest.fixture(scope="session", autouse=True)
def figures_are_blank() -> Iterator[None]:
    """Few tests look at a figure; those ask for ``figures_are_drawn``."""
    from support.figures import blank_figures

    with blank_figures():
        yield


@pytest.fixture(scope="module")
def figures_are_drawn() -> Iterator[None]:
    from support.figures import drawn_figures

    with drawn_figures():
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def real_archive() -> Path:
    return _real("kermany224.tar")


@pytest.fixture(scope="session")
def real_originals() -> Path:
    return _real("kermany-originals-sample.tar")


def _real(name: str) -> Path:
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"real radiographs are not at hand: no ../shared/data/{name}")
    return path


@pytest.fixture(scope="session")
def phantom_folder() -> Path:
    """60 phantoms in the published layout; read only, copy before changing."""
    from cxr.data.phantom.dataset import draw_dataset

    return made_once("phantoms", lambda folder: draw_dataset(folder, images=60, seed=1))


@pytest.fixture(scope="session")
def small_training(phantom_folder: Path) -> SmallTraining:
    """A network trained on the phantoms; read only, copy before changing."""
    from support.trained_models import SmallTraining, train_small_model

    def train(root: Path) -> None:
        root.mkdir()
        train_small_model(root, phantom_folder)

    return SmallTraining(made_once("small-training", train), phantom_folder)


@pytest.fixture(scope="session")
def half_lungs(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelFolders, Path]:
    """Models that each see half of an image, and their ensemble's folder; read only, copy before changing."""
    from support.half_lungs import ensemble_step, write_members

    root = tmp_path_factory.mktemp("half_lungs")
    folders = write_members(root)
    ensemble_step(folders, root / "ensemble").execute()
    return folders, root / "ensemble"


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """Address of a fresh local store in the test's own folder."""
    from support.model_folders import write_store

    return write_store(tmp_path)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebhookServer]:
    """An MLflow server that several tests share; each uses experiments and names of its own, and leaves it alive."""
    from support.tracking_server import WebhookServer

    running = WebhookServer(tmp_path_factory.mktemp("server"))
    running.start()
    yield running
    running.kill()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less patience with a store that is silent: for tests in which it stays so."""
    from cxr.tracking import active_run, background, health

    monkeypatch.setattr(health, "SECONDS", 1)
    monkeypatch.setattr(background, "PATIENCE", 1.5)
    monkeypatch.setattr(active_run, "PATIENCE", 1.5)


@pytest.fixture
def gate(server: WebhookServer) -> Iterator[Gate]:
    """The way to the shared server; it can be held, shut and cut."""
    from support.loopback import Gate

    way = Gate(server.port)
    yield way
    way.open()
    way.close()
