// SPDX-License-Identifier: Apache-2.0
// Compiles with the wasm compiler that npm installed, so nothing is fetched at build time, and serves the local chain.
import path from "node:path";
import { createRequire } from "node:module";
import { defineConfig } from "hardhat/config";

const require = createRequire(import.meta.url);
const solcPackage = require.resolve("solc/package.json");

export default defineConfig({
  solidity: {
    version: require(solcPackage).version.split("+")[0],
    path: path.join(path.dirname(solcPackage), "soljson.js"),
    settings: {
      evmVersion: "cancun",
      viaIR: true,
      optimizer: { enabled: true, runs: 1_000_000 },
      // no hash of paths or comments: the same bytes from any checkout
      metadata: { bytecodeHash: "none" },
    },
  },
  networks: {
    // the one that `hardhat node` serves
    node: {
      type: "edr-simulated",
      chainType: "l1",
      chainId: 31337,
      hardfork: "prague",
      allowBlocksWithSameTimestamp: true,
      mining: process.env.BLOCK_MS ? { auto: false, interval: Number(process.env.BLOCK_MS) } : { auto: true },
    },
  },
  test: { solidity: { fuzz: { runs: 256, seed: "0x1" }, invariant: { runs: 64, depth: 64 } } },
});
