/** Blind signatures on worker threads. */
export { SigningPool, type SigningPoolObserver, type SigningPoolOptions } from "./pool.ts";
