/** The process of the keeper, as `service/processes/supervisor.ts` starts it. */
import { StileError } from "../../wire/index.ts";
import { createLog } from "../log.ts";
import { runChild } from "./child-process.ts";
import { type Keeper, startKeeper } from "./keeper.ts";
import { SOCKET_FD } from "./messages.ts";
import { logOf } from "./process-log.ts";

runChild(({ config, hasSocket, linkKey }) => {
  const log = logOf(createLog(config.log.level), "keeper");
  let keeper: Keeper | undefined;
  return Promise.resolve({
    log,
    open: async () => {
      const plainFd = hasSocket ? SOCKET_FD : undefined;
      keeper = await startKeeper(config, { clock: Date.now, log, linkKey, plainFd });
      return {};
    },
    leave: async (deadlineMs) => keeper?.leave(deadlineMs),
    hear: (message) => {
      if (message.kind !== "status") {
        throw new StileError("SERVICE_PROCESS_FAILED", "the keeper was told what is a worker's");
      }
      keeper?.hear(message);
    },
  });
});
