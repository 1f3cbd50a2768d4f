// The `openai` package against a server of ours, as its users call it: node openai_client.mjs URL TOOLS_URL,
// where the second server's chat format has a place for tools. Fails with the first thing that is not so.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const [url, toolsUrl] = process.argv.slice(2);
const client = new OpenAI({baseURL: url + '/v1', apiKey: 'none', maxRetries: 0});
const messages = [{role: 'user', content: 'Tell me a story'}];
const ask = {model: 'fathom-tiny', messages, max_tokens: 16, temperature: 0};
const done = what => console.log('ok', what);

const models = await client.models.list();
assert.equal(models.data[0].id, 'fathom-tiny');
done('models');

const whole = await client.chat.completions.create(ask);
assert.equal(whole.choices[0].finish_reason, 'length');
assert.equal(whole.usage.completion_tokens, 16);
done('chat');

let text = '', usage = null, reason = null;
for await (const chunk of await client.chat.completions.create(
       {...ask, stream: true, stream_options: {include_usage: true}})) {
  text += chunk.choices[0]?.delta?.content ?? '';
  reason = chunk.choices[0]?.finish_reason ?? reason;
  usage = chunk.usage ?? usage;
}
assert.equal(text, whole.choices[0].message.content);
assert.equal(reason, 'length');
assert.equal(usage.total_tokens, whole.usage.total_tokens);
done('chat, streamed');

const runner = client.chat.completions.stream(ask);
let pieces = '';
runner.on('content', piece => { pieces += piece; });
assert.equal((await runner.finalChatCompletion()).choices[0].message.content, text);
assert.equal(pieces, text);
done('the stream helper');

const told = await client.chat.completions.create({...ask, logprobs: true, top_logprobs: 2});
assert.equal(told.choices[0].logprobs.content.map(t => t.token).join(''), text);
assert.equal(told.choices[0].logprobs.content[0].top_logprobs.length, 2);
done('logprobs');

const three = await client.chat.completions.create({...ask, temperature: 1, seed: 5, n: 3});
assert.deepEqual(three.choices.map(c => c.index), [0, 1, 2]);
done('several choices');

const completion = await client.completions.create(
  {model: 'fathom-tiny', prompt: 'Once upon a time', max_tokens: 8, temperature: 0, echo: true, logprobs: 1});
assert.ok(completion.choices[0].text.startsWith('Once upon a time'));
assert.equal(completion.choices[0].logprobs.tokens.length, 8);
done('completions');

const schema = {type: 'object', additionalProperties: false, required: ['age', 'glad'],
                properties: {age: {type: 'integer'}, glad: {type: 'boolean'}}};
const parsed = await client.chat.completions.parse(
  {...ask, max_tokens: 100, temperature: 1, seed: 1,
   response_format: {type: 'json_schema', json_schema: {name: 'p', strict: true, schema}}});
assert.equal(typeof parsed.choices[0].message.parsed.age, 'number');
assert.equal(typeof parsed.choices[0].message.parsed.glad, 'boolean');
done('structured outputs');

const stream = await client.chat.completions.create({...ask, stream: true, max_tokens: 400});
let chunks = 0;
for await (const chunk of stream) {
  assert.ok(chunk.id);
  if (++chunks === 3) stream.controller.abort();
}
assert.equal(chunks, 3);
done('abort');

const refused = async (act, status, Kind) => {
  try {
    await act();
  } catch (error) {
    assert.equal(error.status, status);
    assert.ok(error instanceof Kind, error.constructor.name);
    assert.ok(error.error.message);
    return;
  }
  assert.fail('it was not refused');
};
await refused(() => client.chat.completions.create({...ask, temperature: 9}), 400, OpenAI.BadRequestError);
await refused(() => client.embeddings.create({model: 'fathom-tiny', input: 'a'}), 501, OpenAI.APIError);
await refused(() => client.beta.threads?.create?.({}) ?? client.get('/nothing'), 404, OpenAI.NotFoundError);
done('errors');

const toolClient = new OpenAI({baseURL: toolsUrl + '/v1', apiKey: 'none', maxRetries: 0});
const parameters = {type: 'object', required: ['city', 'days'], properties: {
  city: {type: 'string', enum: ['Oslo', 'Rome']}, days: {type: 'integer'}}};
const withTools = {model: 'any', messages: [{role: 'user', content: 'How is the weather?'}], max_tokens: 300,
                   temperature: 1, seed: 3, tool_choice: 'required',
                   tools: [{type: 'function', function: {name: 'weather', parameters}}]};
const called = await toolClient.chat.completions.create(withTools);
assert.equal(called.choices[0].finish_reason, 'tool_calls');
const call = called.choices[0].message.tool_calls[0];
assert.equal(call.function.name, 'weather');
assert.ok(['Oslo', 'Rome'].includes(JSON.parse(call.function.arguments).city));
const toolRunner = toolClient.chat.completions.stream(withTools);
const final = (await toolRunner.finalChatCompletion()).choices[0];
assert.equal(final.finish_reason, 'tool_calls');
assert.deepEqual(JSON.parse(final.message.tool_calls[0].function.arguments), JSON.parse(call.function.arguments));
const answered = await toolClient.chat.completions.create(
  {...withTools, tool_choice: 'auto', max_tokens: 8,
   messages: [...withTools.messages, called.choices[0].message,
              {role: 'tool', tool_call_id: call.id, content: 'rain'}]});
assert.ok(answered.choices[0].message);
done('tools');
