// Validates an AsyncAPI document: node asyncapi.mjs FILE. Anything that the parser finds, hints included, is a failure.
import { readFileSync } from 'node:fs';
import { Parser } from '@asyncapi/parser';

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], 'utf8'));
for (const { message, path } of diagnostics) {
  console.error(`${path.join('.')}: ${message}`);
}
if (!document || diagnostics.length > 0) {
  process.exit(1);
}
console.log(`AsyncAPI ${document.version()}: ${document.channels().all().length} channels, nothing found`);
