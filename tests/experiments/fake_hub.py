"""The Hugging Face Hub as folders on the disk, behind functions with the names and arguments of huggingface_hub."""

import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType, SimpleNamespace


class Refusal(OSError):
    """What the package raises for an answer that is an error."""

    def __init__(self, status_code, server_message):
        super().__init__(f"{status_code} Error\n\n{server_message}")
        self.response, self.server_message = SimpleNamespace(status_code=status_code), server_message


class FakeHub(ModuleType):
    """Takes the place of the package; `token` and `failure` say how it is used."""

    def __init__(self, root):
        super().__init__("huggingface_hub")
        self.root, self.token, self.failure = Path(root), "hf_token", None

    def get_token(self):
        return self.token

    def create_repo(self, repo_id, *, token=None, private=None, repo_type=None, exist_ok=False):
        self._answer()
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *, repo_id, folder_path, path_in_repo=None, commit_message=None, allow_patterns=None):
        self._answer()
        for path in Path(folder_path).iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, self.root / repo_id / path.name)

    def snapshot_download(self, repo_id, *, repo_type=None, revision=None, cache_dir=None, allow_patterns=None):
        self._answer()
        if not (self.root / repo_id).is_dir():
            raise Refusal(404, "Repository not found")
        snapshot = self.root.with_name("cache") / repo_id
        snapshot.mkdir(parents=True, exist_ok=True)
        for path in (self.root / repo_id).iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, snapshot / path.name)
        return str(snapshot)

    def _answer(self):
        if self.failure is not None:
            raise self.failure


def install(monkeypatch, root):
    """Let this be what `import huggingface_hub` gives."""
    hub = FakeHub(root)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return hub
