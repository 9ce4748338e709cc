"""Gives a fresh devpi its indexes: a mirror, and a stage with one wheel that is nowhere else.

Arguments: the server's URL, the mirrored index, the wheel's project name.
"""
import base64
import hashlib
import io
import json
import sys
import urllib.request
import zipfile

server, mirrored, project = sys.argv[1:]
token = None


def ask(method, path, body, content_type="application/json"):
    request = urllib.request.Request(server + path, data=body, method=method)
    request.add_header("Content-Type", content_type)
    request.add_header("Accept", "application/json")
    if token:
        request.add_header("X-Devpi-Auth", base64.b64encode(f"root:{token}".encode()).decode())
    return urllib.request.urlopen(request, timeout=60).read()


login = json.dumps({"user": "root", "password": ""}).encode()
token = json.loads(ask("POST", "/+login", login))["result"]["password"]
ask("PUT", "/root/pypi", json.dumps({"type": "mirror", "mirror_url": mirrored, "volatile": False,
                                      # Else its first answer waits for the list of all projects there are.
                                      "mirror_no_project_list": True}).encode())
ask("PUT", "/root/stage", json.dumps({"type": "stage", "bases": [], "volatile": True}).encode())

module = project.replace("-", "_")
info = f"{module}-1.0.dist-info"
files = {
    f"{module}.py": "SECRET = 'ours'\n",
    f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n",
    f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by-hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
record = f"{info}/RECORD"
lines = []
for name, text in files.items():
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    lines.append(f"{name},sha256={digest},{len(text)}")
files[record] = "\n".join([*lines, f"{record},,", ""])
wheel = io.BytesIO()
with zipfile.ZipFile(wheel, "w") as archive:
    for name, text in files.items():
        archive.writestr(name, text)

fields = {":action": "file_upload", "name": project, "version": "1.0", "filetype": "bdist_wheel", "pyversion": "py3"}
edge = "part-of-a-form"
form = b""
for name, value in fields.items():
    form += f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
filename = f"{module}-1.0-py3-none-any.whl"
form += f'--{edge}\r\nContent-Disposition: form-data; name="content"; filename="{filename}"\r\n\r\n'.encode()
form += wheel.getvalue() + f"\r\n--{edge}--\r\n".encode()
ask("POST", "/root/stage/", form, f"multipart/form-data; boundary={edge}")
