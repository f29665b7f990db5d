/** A configuration as its file may say it: a file with the defaults of what is not in use is refused. */
import type { Config } from "../../service/config/index.ts";

/**
 * @param config of the role joint, with an embedded store
 * @param change sections to write in the place of its
 */
export function writtenSettings(config: Config, change: object = {}): object {
  const { edge, issuer, processes, ...others }: Config = { ...config, ...change };
  return {
    ...others,
    edge: { ...edge, spentStore: undefined },
    issuer: { ...issuer, attesters: undefined, tenants: undefined },
    ...(processes.workers === 0 ? {} : { processes }),
  };
}
