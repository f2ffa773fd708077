"""The command `keys`: make a pair, let a client in, list both, let a client in no longer."""

from stream.config import KeysAllowConfig, KeysListConfig, KeysNewConfig, KeysRevokeConfig
from stream.keys import allow, allowed_clients, key_folder, new_pair, own_pairs, read_public, revoke


def keys(step: KeysNewConfig | KeysAllowConfig | KeysListConfig | KeysRevokeConfig) -> int:
    """`contrastream keys`. No private key is ever printed.

    Raises:
        KeyFileError: No key, a label that is taken or unknown, or files that others can read.
    """
    match step:
        case KeysNewConfig(label):
            path = new_pair(label)
            print(
                f"public key {read_public(str(path)).decode()}\nin {path}; hand over this file, and no other"
            )
        case KeysAllowConfig(label, public_key):
            print(f"{label} may come in (says {allow(label, public_key)})")
        case KeysListConfig():
            print(listing())
        case KeysRevokeConfig(label):
            revoke(label)
            print(f"{label} may come in no longer; what it has open ends within a second")
    return 0


def listing() -> str:
    """The own pairs and the allowed clients, with their public keys."""
    lines = [f"keys in {key_folder()}"]
    for title, found in (("your own pairs", own_pairs()), ("clients that may come in", allowed_clients())):
        lines += ["", f"{title}: {'' if found else 'none'}".rstrip()]
        lines += [f"  {label:40} {public.decode()}" for label, public in sorted(found.items())]
    return "\n".join(lines)
