/**
 * What the configuration trusts of authenticators: files of the operator. Nothing is fetched and nothing ships
 * with the program, so nothing is trusted that nobody chose.
 */
import { readFileSync } from "node:fs";
import type { AttestCrypto } from "../../attest/index.ts";
import {
  type AttestationFormat,
  DEFAULT_WEBAUTHN_POLICY,
  type MetadataBlob,
  parseAndroidRevocationList,
  parseMetadataBlob,
  parseTrustAnchors,
  type TrustAnchors,
  type WebAuthnPolicy,
  type WebAuthnTrust,
} from "../../attest/webauthn/index.ts";
import { isStileError, StileError } from "../../wire/index.ts";
import type { WebAuthnConfig } from "../config/webauthn.ts";

/** What the operator decided; everything that is not a setting stays as strict as it can be. */
export function webauthnPolicy(config: WebAuthnConfig): WebAuthnPolicy {
  return {
    ...DEFAULT_WEBAUTHN_POLICY,
    formats: config.formats,
    userVerification: config.userVerification,
    acceptSha1: config.acceptSha1,
    acceptUnanchored: config.unsafeAcceptUnanchored,
    allowedAaguids: config.allowedAaguids,
    deniedAaguids: config.deniedAaguids,
  };
}

export interface TrustLoad {
  readonly config: WebAuthnConfig;
  readonly crypto: AttestCrypto;
  readonly clock: () => number;
  /** Of the metadata that is known: an older blob would hide a report. */
  readonly minNumber?: number;
}

/** The files that {@link loadWebAuthnTrust} reads. */
export function trustFiles(config: WebAuthnConfig): readonly string[] {
  const { androidRevocationFile, metadataBlobFile, metadataRootsFile } = config;
  const roots = config.formats.map((format) => config.rootFiles[format]);
  return [...roots, androidRevocationFile, metadataBlobFile, metadataRootsFile].filter(
    (path) => path !== undefined,
  );
}

/** @throws `SERVICE_CONFIG_INVALID` where a file cannot be used, or where nothing could be accepted */
export async function loadWebAuthnTrust(load: TrustLoad): Promise<WebAuthnTrust> {
  const { config } = load;
  const anchors: Partial<Record<AttestationFormat, TrustAnchors>> = {};
  for (const format of config.formats) {
    const path = config.rootFiles[format];
    if (path === undefined) continue;
    anchors[format] = await using(`rootFiles.${format}`, path, parseTrustAnchors);
  }
  const { androidRevocationFile, metadataBlobFile, metadataRootsFile, unsafeAcceptUnanchored } =
    config;
  if ((metadataBlobFile === undefined) !== (metadataRootsFile === undefined)) {
    throw invalid("metadataBlobFile and metadataRootsFile go together");
  }
  const hasAnchor = Object.keys(anchors).length > 0 || metadataBlobFile !== undefined;
  if (!hasAnchor && unsafeAcceptUnanchored.length === 0) {
    throw invalid("rootFiles or metadataBlobFile: expected one at least, nothing is trusted");
  }
  return {
    anchors,
    ...(metadataBlobFile === undefined || metadataRootsFile === undefined
      ? {}
      : { metadata: await loadMetadata(metadataBlobFile, metadataRootsFile, load) }),
    ...(androidRevocationFile === undefined
      ? {}
      : {
          androidRevocationList: await using(
            "androidRevocationFile",
            androidRevocationFile,
            parseAndroidRevocationList,
          ),
        }),
  };
}

async function loadMetadata(
  blobFile: string,
  rootsFile: string,
  { clock, crypto, minNumber = 0 }: TrustLoad,
): Promise<MetadataBlob> {
  const anchors = await using("metadataRootsFile", rootsFile, parseTrustAnchors);
  return using("metadataBlobFile", blobFile, (jwt) =>
    parseMetadataBlob({ jwt, anchors, crypto, clock, minNumber }),
  );
}

async function using<T>(
  setting: string,
  path: string,
  parse: (text: string) => T | Promise<T>,
): Promise<T> {
  try {
    return await parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw invalid(
      `${setting} ${path}: ${isStileError(cause) ? cause.message : "cannot be read"}`,
      cause,
    );
  }
}

function invalid(what: string, cause?: unknown): StileError {
  const message = `configuration: attester.webauthn.${what}`;
  return new StileError("SERVICE_CONFIG_INVALID", message, { cause });
}
