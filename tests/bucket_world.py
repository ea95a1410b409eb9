"""A bucket on this machine: the part of Cloud Storage's JSON API that gcsfs, google-cloud-storage and TensorStore use.

Strict where it matters: objects appear whole, every write has a generation of its own, and preconditions on generations
hold. `serve()` runs it in a thread; `environment(url)` points all three clients at it.
"""

import base64
import contextlib
import hashlib
import http.server
import itertools
import json
import re
import threading
import urllib.parse

BUCKET = 'dream'


def environment(url):
  """Variables that send every client of Cloud Storage to `url`, without credentials."""
  return {
    'STORAGE_EMULATOR_HOST': url,
    'TENSORSTORE_GCS_HTTP_URL': url,
    'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'nobody',
    'GOOGLE_CLOUD_PROJECT': 'test',
    'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',  # It would ask the real service what kind of bucket this is.
  }


@contextlib.contextmanager
def serve():
  """(url, objects): the address of a new, empty bucket, and what is in it, name -> bytes, as it changes."""
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler)
  server.daemon_threads = True
  server.lock, server.objects, server.uploads = threading.Lock(), {}, {}
  server.numbers = itertools.count(1_000_000)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    yield f'http://127.0.0.1:{server.server_address[1]}', _Contents(server.objects)
  finally:
    server.shutdown()
    server.server_close()


class _Contents:
  """Names and contents of the objects, without their generations; `url` is what a user would type."""

  url = f'gs://{BUCKET}'

  def __init__(self, objects):
    self._objects = objects

  def __iter__(self):
    return iter(sorted(self._objects))

  def __getitem__(self, name):
    return self._objects[name][0]

  def below(self, prefix):
    """Names below a folder, relative to it."""
    return [name.removeprefix(prefix) for name in self if name.startswith(prefix)]


class _RefusedError(Exception):
  def __init__(self, status, headers=()):
    super().__init__(status)
    self.status, self.headers = status, dict(headers)


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'

  def log_message(self, *_):
    pass

  def _serve(self):
    body = self._body()
    try:
      status, headers, content = self._answer(self.command, self.path, body)
    except _RefusedError as refusal:
      error = {'error': {'code': refusal.status, 'message': f'refused with {refusal.status}'}}
      status, headers, content = refusal.status, refusal.headers, json.dumps(error).encode()
    if status in (204, 304):
      content = b''
    self.send_response(status)
    for name, value in {'Content-Type': 'application/json', **headers}.items():
      self.send_header(name, value)
    self.send_header('Content-Length', str(len(content)))
    self.end_headers()
    if self.command != 'HEAD':
      self.wfile.write(content)

  do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  # Names of the standard library.

  def _body(self):
    if self.headers.get('Transfer-Encoding') == 'chunked':
      chunks = []
      while size := int(self.rfile.readline(), 16):
        chunks.append(self.rfile.read(size))
        self.rfile.readline()
      self.rfile.readline()
      return b''.join(chunks)
    return self.rfile.read(int(self.headers.get('Content-Length') or 0))

  def _answer(self, method, target, body):
    url = urllib.parse.urlsplit(target)
    query = dict(urllib.parse.parse_qsl(url.query))
    if url.path.startswith('/batch/'):
      return self._batch(body)
    match = re.fullmatch(r'(/upload|/download)?/storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?', url.path)
    if match is None:
      raise _RefusedError(404)
    kind, bucket, name = match.groups()
    if bucket != BUCKET:
      raise _RefusedError(404)
    if kind == '/upload':
      return self._upload(query, body)
    if name is None:
      if re.search(r'/o$', url.path):
        return self._list(query)
      return _json({'kind': 'storage#bucket', 'name': BUCKET, 'id': BUCKET})
    copy = re.fullmatch(r'(.+)/(?:copyTo|rewriteTo)/b/[^/]+/o/(.+)', name)
    with self.server.lock:
      if copy:
        content, _ = self._find(urllib.parse.unquote(copy[1]))
        resource = self._put(urllib.parse.unquote(copy[2]), content, query)
        return _json({'done': True, 'resource': resource} if 'rewriteTo' in name else resource)
      name = urllib.parse.unquote(name)
      content, generation = self._find(name)
      self._check(query, generation)
      if method == 'DELETE':
        del self.server.objects[name]
        return 204, {}, b''
    if query.get('alt') != 'media':
      return _json(_resource(name, content, generation))
    headers = {'Content-Type': 'application/octet-stream', 'x-goog-generation': str(generation)}
    asked = re.fullmatch(r'bytes=(\d+)-(\d*)', self.headers.get('Range', ''))
    if not asked:
      return 200, headers, content
    first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
    if first >= len(content):
      raise _RefusedError(416)
    return 206, {**headers, 'Content-Range': f'bytes {first}-{last}/{len(content)}'}, content[first : last + 1]

  def _batch(self, body):
    """Several requests in one, of which gcsfs makes its deletions."""
    boundary = re.search(r'boundary="?([^";]+)', self.headers['Content-Type'])[1].encode()
    answers = []
    for part in body.split(b'--' + boundary)[1:-1]:
      method, target = re.search(rb'(DELETE|GET) (\S+) HTTP', part).groups()
      number = re.search(rb'Content-ID:\s*<?([^>\r\n]+)', part)
      try:
        status, _, content = self._answer(method.decode(), target.decode(), b'')
      except _RefusedError as refusal:
        status, content = refusal.status, b'{}'
      name = b'' if number is None else b'Content-ID: <response-' + number[1] + b'>\r\n'
      answers.append(
        b'--answer\r\nContent-Type: application/http\r\n%b\r\nHTTP/1.1 %d -\r\nContent-Length: %d\r\n\r\n%b\r\n'
        % (name, status, len(content), content)
      )
    return 200, {'Content-Type': 'multipart/mixed; boundary=answer'}, b''.join(answers) + b'--answer--'

  def _list(self, query):
    prefix, delimiter = query.get('prefix', ''), query.get('delimiter')
    items, prefixes = [], set()
    with self.server.lock:
      for name, (content, generation) in sorted(self.server.objects.items()):
        if not name.startswith(prefix):
          continue
        rest = name[len(prefix) :]
        if delimiter and delimiter in rest:
          prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
        elif name >= query.get('startOffset', ''):
          items.append(_resource(name, content, generation))
    return _json({'kind': 'storage#objects', 'items': items, 'prefixes': sorted(prefixes)})

  def _upload(self, query, body):
    with self.server.lock:
      if 'upload_id' in query:
        name, before = self.server.uploads[query['upload_id']]
        before += body
        asked = re.fullmatch(r'bytes (?:\d+-\d+|\*)/(\d+|\*)', self.headers.get('Content-Range', ''))
        if asked and asked[1] in ('*', ''):
          return 308, {'Range': f'bytes=0-{len(before) - 1}'} if before else {}, b''
        return _json(self._put(name, bytes(before), query))
      if query['uploadType'] == 'resumable':
        name = query.get('name') or json.loads(body)['name']
        number = str(next(self.server.numbers))
        self.server.uploads[number] = (name, bytearray())
        return 200, {'Location': f'http://{self.headers["Host"]}{self.path}&upload_id={number}'}, b'{}'
      if query['uploadType'] == 'multipart':
        boundary = re.search(r'boundary="?([^";]+)', self.headers['Content-Type'])[1].encode().strip(b"'")
        about, content = (
          part.split(b'\n\n' if b'\r\n\r\n' not in part else b'\r\n\r\n', 1)[1]
          for part in body.split(b'--' + boundary)[1:3]
        )
        content = content.removesuffix(b'\n').removesuffix(b'\r')
        return _json(self._put(query.get('name') or json.loads(about)['name'], content, query))
      return _json(self._put(query['name'], body, query))

  def _find(self, name):
    if name not in self.server.objects:
      raise _RefusedError(404)
    return self.server.objects[name]

  def _put(self, name, content, query):
    self._check(query, self.server.objects[name][1] if name in self.server.objects else 0)
    generation = next(self.server.numbers)
    self.server.objects[name] = (content, generation)
    return _resource(name, content, generation)

  def _check(self, query, generation):
    if query.get('ifGenerationMatch') not in (None, str(generation)):
      raise _RefusedError(412)
    if query.get('ifGenerationNotMatch') == str(generation):
      raise _RefusedError(304, {'x-goog-generation': str(generation)})


def _json(obj):
  return 200, {}, json.dumps(obj).encode()


def _resource(name, content, generation):
  return {
    'kind': 'storage#object',
    'name': name,
    'bucket': BUCKET,
    'size': str(len(content)),
    'generation': str(generation),
    'metageneration': '1',
    'md5Hash': base64.b64encode(hashlib.md5(content).digest()).decode(),
    'updated': '2024-01-01T00:00:00.000Z',
    'timeCreated': '2024-01-01T00:00:00.000Z',
  }
