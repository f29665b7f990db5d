/** Blind signatures on worker threads. */
export { SigningPool, type SigningPoolOptions } from "./pool.ts";
