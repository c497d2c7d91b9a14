"""What the benchmarks time is the same work, by whatever tool."""

from __future__ import annotations

import jobs
import processes
import pytest
import torch

from models import SHIPPED

pytestmark = pytest.mark.usefixtures("one_thread")


def test_our_jobs_give_what_plain_code_gives():
    found = jobs.prepare("ours", str(SHIPPED))
    names = {name.removesuffix(": plain") for name in found if name.endswith(": plain")}
    assert names == {"patching", "harvest", "lens", "heads", "attribution", "features"}
    for name in names:
        want = found[f"{name}: plain"]()
        assert want.abs().max() > 0.1  # not something that anything is close to
        got = found[f"{name}: ours"]().view_as(want)
        torch.testing.assert_close(got, want, atol=2e-3, rtol=2e-3)


def test_every_shard_of_the_timed_harvest_is_the_same_work(tmp_path):
    processes.write_prompts(tmp_path / "prompts.txt", shard=5)
    lengths = [len(line.split()) for line in (tmp_path / "prompts.txt").read_text().splitlines()]
    shards = [sorted(lengths[i : i + 5]) for i in range(0, len(lengths), 5)]
    assert shards == [[4, 25, 47, 68, 90]] * processes.SHARDS


def test_harvests_that_differ_are_not_compared_by_their_times(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for number in range(processes.SHARDS):
            (tmp_path / folder / f"shard-{number:06}.safetensors").write_text(str(number))
    folders = [str(tmp_path / folder) for folder in ("one", "two")]
    processes.check_same(*folders)
    (tmp_path / "two/shard-000003.safetensors").write_text("other")
    with pytest.raises(SystemExit, match="not written the same"):
        processes.check_same(*folders)
