/** Writes docs/corpora.md by running the verifiers over the captured samples. Run with the project's Node. */
import { writeFileSync } from "node:fs";
import { corporaPage } from "../test/attest/support/corpora/page.ts";
import { corpusRows } from "../test/attest/support/corpora/rows.ts";

writeFileSync(new URL("../docs/corpora.md", import.meta.url), corporaPage(await corpusRows()));
