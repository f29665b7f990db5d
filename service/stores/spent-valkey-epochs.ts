/**
 * The epochs of the {@link SpentStore} on Valkey or Redis: where their entries are, how long they are kept, and
 * how they end.
 * ```
 * stile:spent:<key id>:<first byte of the nonce>  hash: nonce → record; once the epoch has ended a string, for ever
 * stile:{epochs}         sorted set: key id → the instant until which some edge needs it, by the server's clock
 * stile:{epochs}:ended   set: the key ids whose epochs are over; it only grows
 * stile:{epochs}:ending  set: of these, the ones that still have hashes
 * ```
 * An epoch has 256 hashes, so that a cluster spreads it and the end of one blocks a server for milliseconds only.
 * The end overwrites each hash by one command, so that there is no instant in which it is missing and could be
 * made anew: an insert finds the hash or the string, and the string refuses it (WRONGTYPE), whoever sends it.
 * All instants are those of the one server that has the sorted set: no edge's clock counts.
 */
import type { Cluster, Valkey } from "iovalkey";
import { encodeHex } from "../../wire/index.ts";

export type ValkeyClient = Valkey | Cluster;

const SHARDS = 256;
const EPOCHS = "stile:{epochs}";
const ENDED = "stile:{epochs}:ended";
const ENDING = "stile:{epochs}:ending";
const KEYS = [EPOCHS, ENDED, ENDING] as const;

const NOW = `local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;
/** ARGV: key id, milliseconds, GT or NX. 0: the epoch has ended. */
const KEEP = `${NOW}
if redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 1 then return 0 end
redis.call('ZADD', KEYS[1], ARGV[3], string.format('%.0f', now + ARGV[2]), ARGV[1])
return 1`;
const END_ONE = `
local function finish(id)
  redis.call('ZREM', KEYS[1], id)
  redis.call('SADD', KEYS[2], id)
  redis.call('SADD', KEYS[3], id)
end
`;
/** ARGV: milliseconds past its instant. @returns what still has hashes, from earlier calls too */
const END_PAST = `${NOW}${END_ONE}
local limit = string.format('%.0f', now - ARGV[1])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. limit)) do finish(id) end
return redis.call('SMEMBERS', KEYS[3])`;
/** ARGV: key id. */
const END = `${END_ONE}finish(ARGV[1])`;

/** Of an entry. */
export function shardOf(tokenKeyId: Uint8Array, nonce: Uint8Array): string {
  return shardKey(encodeHex(tokenKeyId), nonce[0] ?? 0);
}

/**
 * Keeps the epoch for so long from now, unless it is kept for longer; `NX`: unless anybody has said how long.
 * @returns false where it has ended
 */
export async function keepEpoch(
  client: ValkeyClient,
  tokenKeyId: Uint8Array,
  forMs: number,
  rule: "GT" | "NX",
): Promise<boolean> {
  const id = encodeHex(tokenKeyId);
  const kept = await client.eval(KEEP, KEYS.length, ...KEYS, id, Math.ceil(forMs), rule);
  return kept === 1;
}

/** Ends what nobody has needed for so long. @returns how many epochs it ended */
export async function endPastEpochs(client: ValkeyClient, graceMs: number): Promise<number> {
  const answer = await client.eval(END_PAST, KEYS.length, ...KEYS, graceMs);
  const ids = answer as readonly string[];
  for (const id of ids) await endShards(client, id);
  return ids.length;
}

/** Idempotent; a call that is cut short is finished by the next one, or by {@link endPastEpochs}. */
export async function endEpoch(client: ValkeyClient, tokenKeyId: Uint8Array): Promise<void> {
  const id = encodeHex(tokenKeyId);
  await client.eval(END, KEYS.length, ...KEYS, id);
  await endShards(client, id);
}

export function isEnded(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith("WRONGTYPE");
}

/** One after the other: a server that frees a large one has others to answer before the next. */
async function endShards(client: ValkeyClient, id: string): Promise<void> {
  for (let shard = 0; shard < SHARDS; shard += 1) await client.set(shardKey(id, shard), "");
  await client.srem(ENDING, id);
}

function shardKey(id: string, shard: number): string {
  return `stile:spent:${id}:${shard.toString(16).padStart(2, "0")}`;
}
