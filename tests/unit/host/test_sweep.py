"""What killed runs leave among the VMs is removed, and nothing else."""

from __future__ import annotations

from pathlib import Path

from ppn.host.execute import sweep
from ppn.host.paths import Paths

LEFT = (".web.new/.sidecar.json.c974.new", ".web.0a1b.gone/disk.qcow2", "db/.seed.iso.new")
KEPT = ("db/sidecar.json", "db/disk.qcow2")


def test_a_file_half_made_in_a_folder_half_made_goes_with_it(tmp_path: Path) -> None:
    """HOST-05: killed while it wrote the first file of a VM, an agent starts again."""
    paths = Paths(tmp_path)
    for name in (*LEFT, *KEPT):
        file = paths.vms / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    sweep(paths)
    found = {str(path.relative_to(paths.vms)) for path in paths.vms.rglob("*")}
    assert found == {"db", *KEPT}
