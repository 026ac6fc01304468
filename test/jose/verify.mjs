// Verifies exported records with a stock JOSE library and the published JWKS,
// and nothing of Gatehouse's own:
//
//   node verify.mjs JWKS.json RECORDS.ndjson
import { readFileSync } from "node:fs";
import { compactVerify, createLocalJWKSet } from "jose";

const [jwksFile, recordsFile] = process.argv.slice(2);
const keys = createLocalJWKSet(JSON.parse(readFileSync(jwksFile, "utf8")));
const lines = readFileSync(recordsFile, "utf8").split("\n").filter(Boolean).map((line) => JSON.parse(line));

let verified = 0;
for (const { jws } of lines.filter((line) => line.jws)) {
  const { payload } = await compactVerify(jws, keys, { algorithms: ["ES256", "EdDSA"] });
  const record = JSON.parse(new TextDecoder().decode(payload));
  if (record.specversion !== "1.0" || !record.type.startsWith("gatehouse.")) {
    throw new Error(`record ${record.id} is not a Gatehouse event`);
  }
  verified++;
}
console.log(`${verified} verified`);
