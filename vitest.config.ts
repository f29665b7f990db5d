import { defineConfig, type ViteUserConfig } from "vitest/config";

const config: ViteUserConfig = defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/nightly/**", "node_modules/**"],
    pool: "forks",
    maxWorkers: 2,
    // Of the longest, a dozen times what they take alone on the machine.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    globalSetup: ["test/support/global-setup.ts"],
    expect: { poll: { timeout: 10_000 } },
    coverage: {
      provider: "v8",
      include: ["wire/**", "attest/**", "tokens/**", "tls/**", "service/**", "swtpm/**"],
    },
  },
});

export default config;
