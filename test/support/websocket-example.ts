/** RFC 6455 §1.3: the key of the example handshake, and what proves that a server has read it. */
export const EXAMPLE_KEY = "dGhlIHNhbXBsZSBub25jZQ==";
export const EXAMPLE_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
