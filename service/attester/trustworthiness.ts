/**
 * The AR4SI trustworthiness vector of an appraised device (draft-ietf-rats-ar4si §2.3): only what was
 * looked at is claimed, everything else stays "none" (0).
 */
import type { AppraisedDevice, TrustworthinessVector } from "../../attest/index.ts";

/** AR4SI §2.3.1: 2 is the lowest affirming value, 0 is no claim. */
const AFFIRMING = 2;
const NONE = 0;

export function trustworthinessOf(device: AppraisedDevice): TrustworthinessVector {
  return {
    // The EK chains to a manufacturer, and the AK lives in the same TPM.
    instanceIdentity: AFFIRMING,
    hardware: AFFIRMING,
    // PCRs are compared only where reference values are configured.
    configuration: device.configurationMatched ? AFFIRMING : NONE,
    executables: NONE,
    fileSystem: NONE,
    runtimeOpaque: NONE,
    storageOpaque: NONE,
    sourcedData: NONE,
  };
}
