"""Shards divide the images without gap and overlap; a shard whose process fails is tried again alone."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest

from cxr.errors import PipelineError
from cxr.images.shard_processes import run_in_processes
from cxr.images.shards import Shard, all_shards
from support.shard_work import write_shard


def test_the_shards_in_order_are_the_whole_sequence() -> None:
    seed = random.randrange(10**6)
    generator = random.Random(seed)
    for _ in range(200):
        items = range(generator.randrange(50))
        count = generator.randrange(1, 60)
        parts = [shard.part_of(items) for shard in all_shards(count)]
        assert [item for part in parts for item in part] == list(items), f"seed={seed}"
        assert max(map(len, parts)) - min(map(len, parts)) <= 1, f"seed={seed}"


@pytest.mark.parametrize("shard", [Shard(1, 1), Shard(2, 10), Shard(1000, 1000)])
def test_a_shard_is_read_from_its_own_text(shard: Shard) -> None:
    assert Shard.parse(str(shard)) == shard


@pytest.mark.parametrize("text", ["", "2", "0/3", "4/3", "1/0", "1/1001", "-1/3", "1/3 ", "one/3"])
def test_other_texts_are_no_shards(text: str) -> None:
    with pytest.raises(ValueError, match="NUMBER/COUNT"):
        Shard.parse(text)


def test_a_shard_that_is_killed_is_tried_again_alone(tmp_path: Path) -> None:
    run_in_processes(partial(write_shard, tmp_path, 2, 1), 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-0", "2-0", "2-1", "3-0"]
    assert (tmp_path / "2-1").read_text() == "2/3"


def test_a_shard_that_fails_again_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"shard 1/2.*expected another disk"):
        run_in_processes(partial(write_shard, tmp_path, 1, 2), 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-0", "1-1", "2-0"]
