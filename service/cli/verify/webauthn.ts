/**
 * `stile verify webauthn`: a registration as a browser sent it. The file is what `toJSON()` of the
 * credential gives, the rest of the ceremony comes as options.
 */
import { parseArgs } from "node:util";
import {
  ATTESTATION_FORMATS,
  type AttestationFormat,
  DEFAULT_WEBAUTHN_POLICY,
  parseAndroidRevocationList,
  parseMetadataBlob,
  parseRegistrationResponse,
  parseTrustAnchors,
  type WebAuthnPolicy,
  type WebAuthnTrust,
  verifyRegistration,
} from "../../../attest/webauthn/index.ts";
import { createNodeAttestCrypto } from "../../../attest/node/index.ts";
import { decodeBase64Url, isStileError } from "../../../wire/index.ts";
import { CliUsageError } from "../usage.ts";
import { type Facts, instantOf, needed, readBytes, readJson, report } from "./report.ts";

export const WEBAUTHN_USAGE =
  "verify webauthn JSON --challenge BASE64URL --origin ORIGIN --rp-id DOMAIN [--anchor FORMAT=PEM ...] [--metadata BLOB --metadata-root PEM] [--android-revocation JSON] [--allow-sha1] [--user-verification-optional] [--at DATE]";

const options = {
  challenge: { type: "string" },
  origin: { type: "string", multiple: true },
  "rp-id": { type: "string" },
  anchor: { type: "string", multiple: true },
  metadata: { type: "string" },
  "metadata-root": { type: "string" },
  "android-revocation": { type: "string" },
  "allow-sha1": { type: "boolean" },
  "user-verification-optional": { type: "boolean" },
  at: { type: "string" },
  json: { type: "boolean" },
} as const;

export function verifyWebAuthnCommand(args: readonly string[]): Promise<number> {
  const { positionals, values } = parseArgs({ args: [...args], allowPositionals: true, options });
  const response = readJson(needed(positionals[0], WEBAUTHN_USAGE));
  const expected = {
    challenge: base64UrlOf(needed(values.challenge, WEBAUTHN_USAGE)),
    origins: values.origin ?? [],
    rpId: needed(values["rp-id"], WEBAUTHN_USAGE),
  };
  if (expected.origins.length === 0) throw new CliUsageError(`expected: ${WEBAUTHN_USAGE}`);
  const atMs = instantOf(values.at);
  const text = (file: string): string => Buffer.from(readBytes(file)).toString("utf8");
  const policy: WebAuthnPolicy = {
    ...DEFAULT_WEBAUTHN_POLICY,
    ...(values["allow-sha1"] === true
      ? { acceptSha1: ["tpm-attestation", "tpm-name", "credential-key"] }
      : {}),
    ...(values["user-verification-optional"] === true ? { userVerification: "optional" } : {}),
  };
  return report(values.json ?? false, async (): Promise<Facts> => {
    const crypto = createNodeAttestCrypto();
    const list = values["android-revocation"];
    const trust: WebAuthnTrust = {
      anchors: anchorsOf(values.anchor ?? [], text),
      ...(values.metadata === undefined
        ? {}
        : {
            metadata: await parseMetadataBlob({
              jwt: text(values.metadata),
              anchors: parseTrustAnchors(
                text(needed(values["metadata-root"], "--metadata-root PEM")),
              ),
              crypto,
              clock: () => atMs,
            }),
          }),
      ...(list === undefined
        ? {}
        : { androidRevocationList: parseAndroidRevocationList(text(list)) }),
    };
    const { attestation, credential } = await verifyRegistration({
      response: parseRegistrationResponse(response),
      expected,
      policy,
      trust,
      crypto,
      clock: () => atMs,
    });
    return { attestation, credential };
  });
}

function anchorsOf(
  words: readonly string[],
  text: (file: string) => string,
): WebAuthnTrust["anchors"] {
  const anchors: Partial<Record<AttestationFormat, ReturnType<typeof parseTrustAnchors>>> = {};
  for (const word of words) {
    const [name = "", file] = word.split("=", 2);
    const format = ATTESTATION_FORMATS.find((known) => known === name);
    if (format === undefined || file === undefined) {
      throw new CliUsageError("--anchor: expected FORMAT=PEM, for example tpm=roots.pem");
    }
    anchors[format] = parseTrustAnchors(text(file));
  }
  return anchors;
}

function base64UrlOf(text: string): Uint8Array {
  try {
    return decodeBase64Url(text, "challenge");
  } catch (error) {
    if (isStileError(error)) throw new CliUsageError("--challenge: expected base64url");
    throw error;
  }
}
