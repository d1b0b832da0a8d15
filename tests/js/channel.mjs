// SPDX-License-Identifier: Apache-2.0
// A channel to the aggregator whose certificate is the one on chain, and the calls on it.
import { connect as tlsConnect } from "node:tls";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import { ZERO, bytes, sha256 } from "./encoding.mjs";

const PROTO = fileURLToPath(new URL("../../proto/flb/v1/aggregator_service.proto", import.meta.url));
const definitions = protoLoader.loadSync(PROTO, { keepCase: true, longs: String, enums: String, arrays: true });
const Client = grpc.loadPackageDefinition(definitions).flb.v1.AggregatorService;
/** Message types by name, with `serialize` and `deserialize`. */
export const types = Object.fromEntries(
  Object.entries(definitions).map(([name, definition]) => [name.replace("flb.v1.", ""), definition]),
);
const NAME = "flb-aggregator"; // every aggregator's certificate is for this name; which one it is, the digest says

/** The certificate that a server shows, DER; nothing is sent to it. */
const certificateOf = (host, port) => new Promise((resolve, reject) => {
  const socket = tlsConnect({ host, port, servername: NAME, rejectUnauthorized: false, ALPNProtocols: ["h2"] }, () => {
    resolve(socket.getPeerCertificate().raw);
    socket.end();
  });
  socket.setTimeout(10_000, () => socket.destroy(new Error("the aggregator does not answer")));
  socket.on("error", reject);
});

/** Connects to an endpoint as the chain states it: {uri, certDigest, nextCertDigest}. */
export async function connect({ uri, certDigest, nextCertDigest }) {
  const address = uri.replace(/^http:\/\//, "");
  const [, host, port] = /^(.*):(\d+)$/.exec(address) ?? [];
  if (!host) throw new Error(`the endpoint on chain is not HOST:PORT: ${uri}`);
  const options = { "grpc.enable_http_proxy": 0, "grpc.keepalive_time_ms": 30_000 };
  if (bytes(certDigest).equals(ZERO)) {
    if (!["127.0.0.1", "localhost", "[::1]"].includes(host)) throw new Error(`no certificate is on chain for ${uri}`);
    return { service: new Service(new Client(address, grpc.credentials.createInsecure(), options)), certDigest: ZERO };
  }
  const certificate = await certificateOf(host.replace(/^\[|\]$/g, ""), Number(port));
  const seen = sha256(certificate);
  const allowed = [certDigest, nextCertDigest].map(bytes).filter((digest) => !digest.equals(ZERO));
  if (!allowed.some((digest) => digest.equals(seen))) {
    throw new Error("the aggregator's certificate is not the one on chain");
  }
  const body = certificate.toString("base64").replace(/.{64}/g, "$&\n");
  const pem = Buffer.from(`-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----\n`);
  const credentials = grpc.credentials.createSsl(pem);
  const named = { ...options, "grpc.ssl_target_name_override": NAME, "grpc.default_authority": NAME };
  return { service: new Service(new Client(address, credentials, named)), certDigest: seen };
}

/** Gives a gRPC failure the stable code of its trailing metadata, as `error.flb`. */
function coded(error) {
  error.flb = error.metadata?.get("flb-code")[0];
  error.retryMs = Number(error.metadata?.get("flb-retry-ms")[0] ?? 0);
  return error;
}

/** The calls of one channel; `token` is the session's, once there is one. */
class Service {
  token = "";

  constructor(client) {
    this.client = client;
  }

  metadata() {
    const metadata = new grpc.Metadata();
    if (this.token) metadata.set("authorization", `Bearer ${this.token}`);
    return metadata;
  }

  /** One request, one answer. Where the aggregator is busy, it comes back after the time that it is told. */
  async call(method, request) {
    for (;;) {
      try {
        return await new Promise((resolve, reject) => this.client[method](
          request, this.metadata(), { deadline: Date.now() + 30_000 },
          (error, answer) => (error ? reject(coded(error)) : resolve(answer)),
        ));
      } catch (error) {
        if (error.flb !== "busy") throw error;
        await new Promise((resolve) => setTimeout(resolve, error.retryMs || 1000));
      }
    }
  }

  /** One request, many answers. */
  async *stream(method, request) {
    const call = this.client[method](request, this.metadata());
    try {
      for await (const message of call) yield message;
    } catch (error) {
      throw coded(error);
    } finally {
      call.on("error", () => {}); // hanging up ends the call with an error of its own
      call.cancel();
    }
  }

  /** Many requests, one answer: the call to write to; `settled(error, answer)` hears how it ended. */
  open(method, settled) {
    return this.client[method](this.metadata(), (error, answer) => settled(error && coded(error), answer));
  }

  close() {
    this.client.close();
  }
}
