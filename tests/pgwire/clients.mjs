// What the two drivers of Node give, as one line of JSON each.
import { createRequire } from 'node:module'
import fs from 'node:fs'
const [modules, port, ca, user, password] = process.argv.slice(2)
const require = createRequire(modules + '/')
const pg = require('pg')
const postgres = require('postgres')
const ssl = { ca: fs.readFileSync(ca) }
const say = async (name, ask) => {
  let out
  try { out = await ask() } catch (e) { out = 'error ' + e.code }
  console.log(JSON.stringify([name, out]))
}
const client = new pg.Client({ host: 'localhost', port, user, password, database: 'strongroom', ssl, enableChannelBinding: true })
await client.connect()
await say('pg', async () => (await client.query('SELECT count(*), $1::int AS x FROM memories WHERE agent_id = $2 AND importance > $3', [5, 'agent-1', 0.1])).rows)
for (const n of [1, 2]) await say('named', async () => (await client.query({ name: 'q', text: 'SELECT content, tags, metadata FROM memories WHERE access_count = $1 ORDER BY importance LIMIT 1', values: [0] })).rows)
await say('any', async () => (await client.query('SELECT count(*) FROM memories WHERE agent_id = ANY($1)', [['agent-1', 'agent-2']])).rows)
await say('several', async () => (await client.query('SELECT 1 AS a; SELECT 2 AS b')).map(r => r.rows))
await say('error', async () => (await client.query('SELECT nope FROM memories')).rows)
await client.end()
const sql = postgres({ host: 'localhost', port: +port, user, password, database: 'strongroom', ssl, max: 2 })
await say('postgres', async () => await sql`SELECT content, tags FROM memories WHERE importance > ${0.5} AND agent_id = ${'agent-1'} ORDER BY importance LIMIT 1`)
await say('in', async () => await sql`SELECT count(*) FROM memories WHERE agent_id IN ${sql(['agent-1', 'agent-2'])}`)
await say('cursor', async () => { let n = 0; await sql`SELECT content FROM memories`.cursor(10, rows => { n += rows.length }); return n })
await say('begin', async () => await sql.begin(async s => await s`SELECT 1 AS x`))
await say('wrong', async () => await sql`SELECT nope FROM memories`)
await sql.end()
