import http.server
import json
import subprocess
import sys
import threading

import pytest

from launch import multislice
from tests.launch.fakes import ROOT

LIVE = {
  "MEGASCALE_NUM_SLICES": "2",
  "MEGASCALE_SLICE_ID": "1",
  "MEGASCALE_COORDINATOR_ADDRESS": "10.0.0.2:8080",
}
NOWHERE = {"GCE_METADATA_IP": "127.0.0.1:1"}


@pytest.fixture
def metadata():
  """A metadata server on this machine; `text` is its tpu-env."""

  def answer(request):
    known = request.path.endswith("/instance/attributes/tpu-env")
    told = known and request.headers["Metadata-Flavor"] == "Google"
    request.send_response(200 if told else 403)
    request.end_headers()
    request.wfile.write(server.text.encode())

  base = http.server.BaseHTTPRequestHandler
  methods = {"do_GET": answer, "log_message": lambda *_: None}
  server = http.server.HTTPServer(("127.0.0.1", 0), type("Handler", (base,), methods))
  server.text = "".join(f"{name}: '{value}'\n" for name, value in LIVE.items())
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  yield server
  server.shutdown()
  thread.join()
  server.server_close()


def test_of_one_slice_no_variable_stays():
  variables, notes = multislice.environment({**LIVE, "HOME": "/h"}, 1)
  assert variables == {"HOME": "/h"}
  assert len(notes) == 3


def test_a_jobset_says_which_slice_a_pod_is_of_whatever_was_inherited():
  pod = {"EAGLE_SLICE_ID": "0", "EAGLE_SLICE_COORDINATOR": "eagle-slice-0-0.eagle"}
  variables, notes = multislice.environment({**LIVE, **pod}, 3)
  assert variables["MEGASCALE_NUM_SLICES"] == "3"
  assert variables["MEGASCALE_SLICE_ID"] == "0"
  assert variables["MEGASCALE_COORDINATOR_ADDRESS"] == "eagle-slice-0-0.eagle"
  assert "MEGASCALE_SLICE_ID=1 was inherited, the slices say 0" in notes


def test_a_tpu_vm_asks_its_metadata_and_does_not_trust_what_was_inherited(metadata):
  metadata.text = "ACCELERATOR_TYPE: 'v4-128'\n" + metadata.text
  stale = {"MEGASCALE_SLICE_ID": "0", "MEGASCALE_PORT": "9"}
  host = {"GCE_METADATA_IP": f"127.0.0.1:{metadata.server_port}"}
  variables, notes = multislice.environment({**stale, **host}, 2)
  assert {n: v for n, v in variables.items() if n.startswith("MEGASCALE")} == LIVE
  assert notes == [
    "MEGASCALE_PORT=9 was inherited, the slices say none",
    "MEGASCALE_SLICE_ID=0 was inherited, the slices say 1",
  ]


def test_without_either_the_environment_is_believed_if_it_fits():
  assert multislice.environment({**LIVE, **NOWHERE}, 2) == ({**LIVE, **NOWHERE}, [])


@pytest.mark.parametrize(
  ("changed", "slices", "message"),
  [
    ({}, 3, "MEGASCALE_NUM_SLICES is '2', --slices is 3"),
    ({"MEGASCALE_SLICE_ID": "2"}, 2, "must be one of 0 to 1, it is '2'"),
    ({"MEGASCALE_SLICE_ID": ""}, 2, "must be one of 0 to 1, it is ''"),
    ({"MEGASCALE_COORDINATOR_ADDRESS": ""}, 2, "must be HOST or HOST:PORT, it is ''"),
    ({"MEGASCALE_COORDINATOR_ADDRESS": "http://a"}, 2, "a port must be one of"),
    ({"MEGASCALE_PORT": "70000"}, 2, "MEGASCALE_PORT is '70000'"),
  ],
)
def test_slices_that_do_not_fit_are_told_and_fatal(changed, slices, message):
  done = subprocess.run(
    [sys.executable, ROOT / "launch" / "multislice.py", f"--slices={slices}", "--", "true"],
    env={**LIVE, **NOWHERE, **changed},
    capture_output=True,
    text=True,
    check=False,
  )
  assert (done.returncode, done.stdout) == (43, "")
  assert done.stderr.startswith("multislice: ")
  assert message in done.stderr


def test_becomes_the_command_with_its_own_flags():
  shown = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ.get('LEFT')]))"
  run = [sys.executable, str(ROOT / "launch" / "multislice.py"), "--slices=1", "--"]
  command = [sys.executable, "-c", shown, "--slices=9", "--", "-x"]
  done = subprocess.run([*run, *command], env={"LEFT": "1"}, capture_output=True, check=True)
  assert json.loads(done.stdout) == [["--slices=9", "--", "-x"], "1"]
  absent = subprocess.run([*run, "/absent"], capture_output=True, text=True, check=False)
  assert (absent.returncode, absent.stderr) == (
    127,
    "multislice: /absent: No such file or directory\n",
  )
