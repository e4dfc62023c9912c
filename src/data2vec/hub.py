"""From a folder or a hub id to files on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from data2vec.errors import UserError

HUB_ARGUMENTS = ("revision", "cache_dir", "token", "local_files_only", "force_download", "subfolder")
"""Keywords of `resolve` that every ``from_pretrained`` passes on."""


def resolve(
    path_or_id: str | Path,
    filenames: str | Sequence[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    subfolder: str = "",
) -> Path:
    """One file of a model or a processor, or the folder that holds several; a hub id is downloaded (and cached) first.

    Args:
        path_or_id: a folder, or a hub id such as ``"facebook/data2vec-audio-base-960h"``. A folder wins.
        filenames: the name of one file; or a list of names and patterns (``"*.safetensors"``). No others are
            downloaded.
        revision: branch, tag or commit on the hub.
        cache_dir: where downloads are kept; the hub's own cache by default.
        token: access token for a private repository; True takes the stored one.
        local_files_only: never touch the network; ``HF_HUB_OFFLINE=1`` does the same.
        force_download: download even what is cached.
        subfolder: folder inside the repository or folder that holds the files.

    Returns:
        The file, for one name; for a list, the folder with at least one of them.

    Raises:
        UserError: no such folder or repository, not reachable, or none of the files in it.
    """
    wanted = [filenames] if isinstance(filenames, str) else filenames
    folder = Path(path_or_id).expanduser()
    if not folder.is_dir():
        if folder.is_file():
            raise UserError(f"{path_or_id} is a file: give the folder it lies in")
        folder = _download(
            str(path_or_id),
            [f"{subfolder}/{name}" if subfolder else name for name in wanted],
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            force_download=force_download,
        )
    folder = folder / subfolder
    present = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    if not any(fnmatch(name, pattern) for name in present for pattern in wanted):
        raise UserError(f"{path_or_id}: none of {', '.join(wanted)} in {folder}")
    return folder / filenames if isinstance(filenames, str) else folder


def _download(
    repo_id: str,
    patterns: list[str],
    *,
    revision: str | None,
    cache_dir: str | Path | None,
    token: str | bool | None,
    local_files_only: bool,
    force_download: bool,
) -> Path:
    if repo_id.count("/") > 1 or repo_id.startswith((".", "/", "~")) or not repo_id:
        raise UserError(f"no folder {repo_id!r}, and it cannot be a hub id (those read 'owner/name')")
    # Here, because the client takes a tenth of a second to import and most calls are about a folder.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        snapshot = snapshot_download(
            repo_id,
            allow_patterns=patterns,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            force_download=force_download,
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        what = "is not cached" if local_files_only else "could not be downloaded"
        at = f" (revision {revision!r})" if revision else ""
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{repo_id!r} is no folder here, and as a hub id{at} it {what}: {reason}") from error
    return Path(snapshot)
