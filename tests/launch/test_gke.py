"""The JobSet, held against the parts of the APIs that it uses."""

import re

import pytest
import yaml

from tests.launch.fakes import CANARY, TRAIN

FLAGS = (
  "--name=eagle",
  "--image=host/eagle:1",
  "--accelerator=tpu-v5-lite-podslice",
  "--topology=4x8",
)
ACTIONS = {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}
REASONS = {"PodFailurePolicy", "BackoffLimitExceeded", "DeadlineExceeded"}
RULE = {"name": str, "action": ACTIONS, "onJobFailureReasons": [REASONS]}
POD_RULES = {
  "action": {"FailJob", "Ignore", "Count"},
  "onExitCodes?": {"containerName": {"trainer"}, "operator": {"In"}, "values": [int]},
  "onPodConditions?": [{"type": {"DisruptionTarget"}, "status": {"True"}}],
}
FIELD = {"fieldRef": {"fieldPath": str}}
CONTAINER = {
  "name": {"trainer"},
  "image": str,
  "args": [str],
  "env": [{"name": str, "value?": str, "valueFrom?": FIELD}],
  "envFrom?": [{"secretRef": {"name": str}}],
  "ports": [{"containerPort": int}],
  "volumeMounts": [{"name": {"memory", "shared"}, "mountPath": {"/dev/shm", "/mnt/eagle"}}],
  "resources": {"requests": {"google.com/tpu": int}, "limits": {"google.com/tpu": int}},
}
POD = {
  "restartPolicy": {"Never"},  # a podFailurePolicy demands it
  "terminationGracePeriodSeconds": int,
  "nodeSelector": {
    "cloud.google.com/gke-tpu-accelerator": str,
    "cloud.google.com/gke-tpu-topology": str,
    "cloud.google.com/gke-spot?": {"true"},
  },
  "tolerations?": [{"key": str, "operator": {"Equal"}, "value": str, "effect": {"NoSchedule"}}],
  "serviceAccountName?": str,
  "containers": [CONTAINER],
  "volumes": [
    {
      "name": {"memory", "shared"},
      "emptyDir?": {"medium": {"Memory"}},
      "persistentVolumeClaim?": {"claimName": str},
    }
  ],
}
JOB = {
  "parallelism": int,
  "completions": int,
  "completionMode": {"Indexed"},
  "backoffLimit": int,
  "podReplacementPolicy": {"Failed"},  # the only one beside a podFailurePolicy
  "podFailurePolicy": {"rules": [POD_RULES]},
  "template": {"spec": POD},
}
JOBSET = {
  "apiVersion": {"jobset.x-k8s.io/v1alpha2"},
  "kind": {"JobSet"},
  "metadata": {"name": str, "annotations": {str: str}},
  "spec": {
    "failurePolicy": {
      "maxRestarts": int,
      "rules": [{**RULE, "onJobFailureMessagePatterns": [str]}],
    },
    "replicatedJobs": [{"name": str, "replicas": int, "template": {"spec": JOB}}],
  },
}
"""Of a mapping every key (`?`: may be absent), of a list each item, of a set one of it."""


def breaches(value, schema, place="manifest"):
  """Every place where a value does not have the shape of the schema."""
  if isinstance(schema, type):
    return [] if type(value) is schema else [f"{place} is {value!r}, no {schema.__name__}"]
  if isinstance(schema, set):
    return [] if value in schema else [f"{place} is {value!r}, none of {schema}"]
  if isinstance(schema, list):
    if not isinstance(value, list) or not value:
      return [f"{place} is no list with items"]
    return [b for i, v in enumerate(value) for b in breaches(v, schema[0], f"{place}[{i}]")]
  if str in schema:
    return [b for k, v in value.items() for b in breaches(v, schema[str], f"{place}.{k}")]
  names = {name.rstrip("?"): below for name, below in schema.items()}
  missing = [n for n in schema if not n.endswith("?") and n not in value]
  found = [f"{place} has no {name}" for name in missing]
  found += [f"{place} has an unknown {name}" for name in value if name not in names]
  return found + [
    b for k, v in value.items() if k in names for b in breaches(v, names[k], f"{place}.{k}")
  ]


def job(manifest):
  (replicated,) = manifest["spec"]["replicatedJobs"]
  return replicated, replicated["template"]["spec"], replicated["template"]["spec"]["template"]


def test_the_manifest_is_a_jobset_of_whole_slices(fakes):
  hostile = '--config.name="; $(rm -rf x) # $name\\'.replace("$(", "$ (")
  more = (
    "--slices=2",
    "--chips-per-host=4",
    "--spot",
    "--secret=eagle-env",
    "--claim=runs",
    "--account=trainer",
  )
  done = fakes.run("gke.sh", "render", *FLAGS, *more, "--grace=900", *TRAIN, hostile)
  assert done.returncode == 0, done.stderr
  manifest = yaml.safe_load(done.stdout)
  assert breaches(manifest, JOBSET) == []
  slices, hosts, pod = job(manifest)
  assert (slices["replicas"], hosts["parallelism"], hosts["completions"]) == (2, 8, 8)
  (container,) = pod["spec"]["containers"]
  assert container["args"] == ["exec", "--slices=2", *TRAIN, hostile]
  assert container["envFrom"] == [{"secretRef": {"name": "eagle-env"}}]
  assert {"name": "shared", "mountPath": "/mnt/eagle"} in container["volumeMounts"]
  assert container["env"][1]["value"] == "eagle-slice-0-0.eagle"
  assert pod["spec"]["terminationGracePeriodSeconds"] == 900
  assert pod["spec"]["nodeSelector"]["cloud.google.com/gke-spot"] == "true"


def test_without_spot_secret_and_account_their_lines_are_gone(fakes):
  manifest = yaml.safe_load(fakes.run("gke.sh", "render", *FLAGS, *TRAIN).stdout)
  assert breaches(manifest, JOBSET) == []
  pod = job(manifest)[2]["spec"]
  assert {"tolerations", "serviceAccountName"}.isdisjoint(pod)
  assert "envFrom" not in pod["containers"][0]
  assert breaches({**manifest, "kind": "Job", "more": 1}, JOBSET) == [
    "manifest has an unknown more",
    "manifest.kind is 'Job', none of {'JobSet'}",
  ]


@pytest.mark.parametrize(
  ("code", "disrupted", "action"),
  [
    (43, False, "FailJobSet"),
    (42, False, "RestartJobSetAndIgnoreMaxRestarts"),
    (137, True, "RestartJobSetAndIgnoreMaxRestarts"),
    (1, False, "RestartJobSet"),
    (134, False, "RestartJobSet"),
  ],
)
def test_the_exit_code_decides_what_the_jobset_does(fakes, code, disrupted, action):
  """As the Job controller words it, a pod that fails by a rule tells the rule's place."""
  manifest = yaml.safe_load(fakes.run("gke.sh", "render", *FLAGS, *TRAIN).stdout)
  reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
  for place, rule in enumerate(job(manifest)[1]["podFailurePolicy"]["rules"]):
    if code in rule.get("onExitCodes", {}).get("values", []):
      by = f"Container trainer for pod default/eagle-slice-0-0-x failed with exit code {code}"
    elif disrupted and "onPodConditions" in rule:
      by = "Pod default/eagle-slice-0-0-x has condition DisruptionTarget"
    else:
      continue
    reason, message = "PodFailurePolicy", f"{by} matching {rule['action']} rule at index {place}"
    break
  rules = manifest["spec"]["failurePolicy"]["rules"]
  taken = [
    rule["action"]
    for rule in rules
    if reason in rule["onJobFailureReasons"]
    and any(re.search(pattern, message) for pattern in rule["onJobFailureMessagePatterns"])
  ]
  assert [*taken, "RestartJobSet"][0] == action


def test_apply_gives_the_cluster_what_render_prints(fakes):
  rendered = fakes.run("gke.sh", "render", *FLAGS, *TRAIN).stdout
  dry = fakes.run("gke.sh", "apply", *FLAGS, "--namespace=n1", "--dry-run", *TRAIN)
  done = fakes.run("gke.sh", "apply", *FLAGS, "--namespace=n1", *TRAIN)
  assert done.returncode == 0, done.stderr
  assert fakes.calls() == [["kubectl", "--namespace=n1", "apply", "--filename=-"]]
  assert dry.stdout.split() == fakes.calls()[0]
  assert yaml.safe_load(fakes.given()) == yaml.safe_load(rendered)


def test_a_secret_goes_by_file_and_standard_input(fakes):
  fakes.answer(" create secret ", f"kind: Secret # {CANARY}")
  done = fakes.run("gke.sh", "secret", "--name=eagle", f"--env-file={fakes.secrets}")
  assert done.returncode == 0, done.stderr
  assert [call[2] for call in fakes.calls()] == ["create", "apply"]
  assert f"--from-env-file={fakes.secrets}" in fakes.calls()[0]
  assert CANARY in fakes.given()
  assert CANARY not in str(fakes.calls()) + done.stdout + done.stderr


@pytest.mark.parametrize(
  ("end", "reason", "code"),
  [
    ("Completed", "", 0),
    ("Failed", "FailJobSetFailurePolicyAction", 43),
    ("Failed", "ReachedMaxRestarts", 1),
  ],
)
def test_wait_tells_how_it_ended(fakes, end, reason, code):
  fakes.answer(".reason}", reason)
  fakes.answer("terminalState", "", ("", 1, "the server is busy"), end)
  assert fakes.run("gke.sh", "wait", "--name=eagle").returncode == code
  assert len(fakes.calls("sleep")) == 2


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("--topology=4x8x2x2",), "--topology must look like"),
    (("--chips-per-host=3",), "has 32 chips, --chips-per-host 3 does not divide them"),
    (("--slices=0",), "--slices must look like"),
    ((*TRAIN, "--config.name=$(HOME)"), "Kubernetes would expand"),
  ],
)
def test_a_mistake_is_told(fakes, arguments, message):
  given = arguments if "--" in arguments else (*arguments, *TRAIN)
  done = fakes.run("gke.sh", "apply", *FLAGS, *given)
  assert (done.returncode, fakes.calls()) == (2, [])
  assert message in done.stderr
