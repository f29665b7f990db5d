/** One software TPM and one manufacturer for a test file. */
import { afterAll, beforeAll } from "vitest";
import {
  createManufacturerCa,
  type ManufacturerCa,
  startSwtpm,
  type Swtpm,
} from "../../swtpm/index.ts";

/** A date at which every certificate of these tests is valid. */
export const testNow: number = Date.UTC(2026, 10, 23);

export interface TestSwtpm {
  readonly ca: ManufacturerCa;
  readonly swtpm: Swtpm;
}

/** Starts before the tests of the calling file and stops after them. */
export function useSwtpm(ekAlgorithms: readonly ("rsa" | "ecc")[] = ["rsa", "ecc"]): TestSwtpm {
  let ca: ManufacturerCa | undefined;
  let swtpm: Swtpm | undefined;
  beforeAll(async () => {
    ca = await createManufacturerCa({ clock: () => testNow });
    swtpm = await startSwtpm({ ca, ekAlgorithms });
  });
  afterAll(() => swtpm?.stop());
  return {
    get ca(): ManufacturerCa {
      return required(ca);
    },
    get swtpm(): Swtpm {
      return required(swtpm);
    },
  };
}

function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("the software TPM has not been started");
  return value;
}
