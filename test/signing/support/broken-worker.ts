/** A worker that cannot start. */
throw new Error("this module does not load");
