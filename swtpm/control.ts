/**
 * The sockets of swtpm: its control channel (include/swtpm/tpm_ioctl.h of the swtpm project, numbers
 * in network byte order) and the data channel, where a TPM command goes in and a response comes out.
 */
import { createConnection } from "node:net";
import { Reader, StileError, Writer } from "../wire/index.ts";

const CMD_GET_CAPABILITY = 1;
const CMD_INIT = 2;
const PTM_INIT_FLAG_DELETE_VOLATILE = 1;
/** TPM2_Startup(TPM_SU_CLEAR): tag, size, TPM_CC_Startup, startupType. */
const TPM2_STARTUP_CLEAR: Uint8Array = new Writer().u16(0x8001).u32(12).u32(0x144).u16(0).finish();
const TPM_RC_INITIALIZE = 0x100;
const ANSWER_TIMEOUT_MS = 10_000;

/** True when an swtpm answers on this control socket. */
export async function isAnswering(controlPath: string): Promise<boolean> {
  try {
    await exchange(controlPath, new Writer().u32(CMD_GET_CAPABILITY).finish(), 8);
    return true;
  } catch {
    return false;
  }
}

/**
 * A TPM reset: power off and on, then TPM2_Startup(CLEAR). Transient objects and PCRs are lost,
 * seeds and NV stay.
 * @throws `SWTPM_FAILED`
 */
export async function resetTpm(controlPath: string, dataPath: string): Promise<void> {
  const init = new Writer().u32(CMD_INIT).u32(PTM_INIT_FLAG_DELETE_VOLATILE).finish();
  const result = new Reader(await exchange(controlPath, init, 4), "ptm_init").u32("tpm_result");
  if (result !== 0) throw failed(`CMD_INIT answered ${result}`);
  const response = new Reader(await exchange(dataPath, TPM2_STARTUP_CLEAR, 10), "TPM2_Startup");
  response.bytes("header", 6);
  const code = response.u32("responseCode");
  if (code !== 0 && code !== TPM_RC_INITIALIZE) throw failed(`TPM2_Startup answered ${code}`);
}

/** Sends a request and takes the first `length` bytes of the answer. */
function exchange(path: string, request: Uint8Array, length: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    const socket = createConnection({ path, timeout: ANSWER_TIMEOUT_MS });
    socket.once("connect", () => socket.write(request));
    socket.on("data", (part: Buffer) => {
      parts.push(part);
      const answer = Buffer.concat(parts);
      if (answer.length < length) return;
      socket.destroy();
      resolve(new Uint8Array(answer.subarray(0, length)));
    });
    socket.once("timeout", () => socket.destroy(failed("no answer in time")));
    socket.once("error", (cause) => reject(failed("the socket failed", cause)));
    socket.once("close", () => reject(failed("the socket closed without an answer")));
  });
}

function failed(message: string, cause?: unknown): StileError {
  return new StileError("SWTPM_FAILED", `swtpm: ${message}`, { cause });
}
