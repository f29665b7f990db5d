import { defineConfig, mergeConfig, type ViteUserConfig } from "vitest/config";
import base from "./vitest.config.ts";

/** The suites that take longer than `npm test` may: the same tests with more rounds, and nightly ones. */
const config: ViteUserConfig = mergeConfig(
  { ...base, test: { ...base.test, include: [], exclude: [] } },
  defineConfig({
    test: {
      include: [
        "test/nightly/**/*.test.ts",
        "test/e2e/kill.test.ts",
        "test/e2e/shared-store.test.ts",
        "test/attest/fuzz.test.ts",
        "test/attest/webauthn-enrolment.test.ts",
        "test/service/fuzz.test.ts",
        "test/service/webauthn.test.ts",
        "test/tls/chaos.test.ts",
        "test/interop/go.test.ts",
        "test/interop/envoy.test.ts",
        "test/interop/h2spec.test.ts",
        "test/processes/supervisor.test.ts",
        "test/processes/systemd.test.ts",
      ],
      exclude: ["node_modules/**"],
      env: {
        CHAOS_SECONDS: "60",
        KILL_ROUNDS: "20",
        MUTATED_REQUESTS: "10500",
        FUZZ_CASES: "1000000",
        PROCESS_ROUNDS: "5",
        SHARED_TOKENS: "10000",
        WEBAUTHN_CASES: "5000",
        STILE_GO_INTEROP: "1",
      },
    },
  }),
);

export default config;
