#!/usr/bin/env python3
"""Verify a proof that `gatehouse log proof` or `gatehouse-crm log proof` wrote.

usage: proof.py PROOF KEYS...
KEYS are files with what `gatehouse keys show --json`, `gatehouse-crm pki show --json` or
`gatehouse-crm controllers list --json` print. Needs Python 3.9 and the package cryptography.
"""
import base64, hashlib, json, sys, time
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

def need(ok, what):
    if not ok: sys.exit("BAD: " + what)

def sha(*parts): return hashlib.sha256(b"".join(parts)).digest()

def b64url(text): return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

def signed(key, signature, message):
    """key is that of a vkey (c2sp.org/signed-note): its type, 1 or 4 Ed25519, 2 ECDSA P-256, then the key"""
    try:
        if key[0] == 2: load_der_public_key(key[1:]).verify(signature, message, ec.ECDSA(SHA256()))
        else: ed25519.Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature, message)
        return True
    except InvalidSignature: return False

def vkeys(path):
    text = open(path).read().strip()
    while text:  # one JSON object or several
        keys, end = json.JSONDecoder().raw_decode(text)
        text = text[end:].strip()
        for vkey in keys.get("vkeys", []) + [keys.get("vkey"), keys.get("cosigner")]:
            if vkey: yield vkey.split("+", 2)[0], base64.b64decode(vkey.split("+", 2)[2])

proof, keys = json.load(open(sys.argv[1])), [k for path in sys.argv[2:] for k in vkeys(path)]
controller, epoch, index, size = proof["controller"], proof["epoch"], proof["index"], proof["size"]

# The checkpoint: three lines, signed by the log and by the CRM (c2sp.org/tlog-checkpoint, tlog-cosignature).
text, _, signatures = proof["checkpoint"].partition("\n\n")
origin, count, root = text.split("\n")
need((origin, count) == (f"gatehouse/{controller}/{epoch}", str(size)), "the checkpoint is of another log or size")
message, log, crm = (text + "\n").encode(), None, None
for line in signatures.splitlines():
    _, name, blob = line.split(" ")
    signature = base64.b64decode(blob)[4:]  # without the hint which key it is
    for owner, key in keys:
        if key[0] in (1, 2) and name == origin and (owner + "/").startswith(f"gatehouse/{controller}/") and signed(key, signature, message): log = key
        stamp = int.from_bytes(signature[:8], "big")
        if key[0] == 4 and name == owner and signed(key, signature[8:], b"cosignature/v1\ntime %d\n" % stamp + message): crm = owner, stamp
need(log, "the checkpoint is not signed by a key of this controller's log")
need(crm, "the checkpoint is not countersigned by a known CRM")

# The record: a JWS (RFC 7515) by the same key, which says its own place in the log.
header, payload, signature = proof["jws"].split(".")
head, raw = json.loads(b64url(header)), b64url(signature)
need((head["alg"], head["typ"]) == ("ES256" if log[0] == 2 else "EdDSA", "gatehouse-record+jwt"), "the JWS is not a record of this key")
if log[0] == 2: raw = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
need(signed(log, raw, f"{header}.{payload}".encode()), "the record's signature is wrong")
record = json.loads(b64url(payload))
need([record["data"][k] for k in ("controller", "epoch", "sequence")] == [controller, epoch, index], "the record names another place")

# Inclusion (RFC 9162, section 2.1.3.2): from the record's leaf up to the signed root.
node, fn, sn = sha(b"\0", proof["jws"].encode()), index, size - 1
for other in map(base64.b64decode, proof["hashes"]):
    need(sn > 0, "the proof has too many hashes")
    if fn % 2 or fn == sn:
        node = sha(b"\1", other, node)
        while fn % 2 == 0 and fn: fn, sn = fn // 2, sn // 2
    else: node = sha(b"\1", node, other)
    fn, sn = fn // 2, sn // 2
need(index < size and sn == 0 and node == base64.b64decode(root), "the record is not under the signed root")

print(f"ok: record {index} of {controller} ({record['type']}, {record['time']}) is in its log of {size} records,")
print(f"    signed by the controller, countersigned by {crm[0]} at {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(crm[1]))}")
