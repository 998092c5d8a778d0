'use strict';
// An S3 server that checks signatures: `node server.js DIRECTORY PORT BUCKET KEY_ID SECRET`.

const S3rver = require('@20minutes/s3rver');
const account = require('@20minutes/s3rver/lib/models/account');

const [directory, port, bucket, keyId, secret] = process.argv.slice(2);
account.DUMMY_ACCOUNT.revokeAccessKey('S3RVER'); // the key that everybody knows
account.DUMMY_ACCOUNT.createKeyPair(keyId, secret);

new S3rver({
  address: '127.0.0.1',
  port: Number(port),
  silent: true,
  directory,
  configureBuckets: [{ name: bucket }],
}).run();
