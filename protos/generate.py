"""Generate chat_pb2.py and its stub from chat.proto; with --check, only say whether they are up to date."""

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ("protos/chat_pb2.py", "protos/chat_pb2.pyi")


def generate(into: Path) -> None:
    failed = protoc.main(
        ["protoc", f"--proto_path={ROOT}", f"--python_out={into}", f"--pyi_out={into}", "protos/chat.proto"]
    )
    if failed:
        sys.exit("protos/chat.proto does not compile.")


def main() -> None:
    if "--check" not in sys.argv:
        generate(ROOT)
        return
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        for name in GENERATED:
            if (ROOT / name).read_bytes() != (Path(scratch) / name).read_bytes():
                sys.exit(f"{name} is not what protos/chat.proto generates; run make protos.")
    print("Generated Protobuf code is up to date.")


if __name__ == "__main__":
    main()
