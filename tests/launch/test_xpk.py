import shlex

from tests.launch.fakes import CANARY, TRAIN, commands

PLACE = ("--cluster=c1", "--zone=z1", "--project=p1")


def test_a_workload_is_created_as_the_dry_run_says(fakes):
  arguments = ("create", "--name=eagle", *PLACE, "--accelerator=v5litepod-256", "--image=i:1")
  arguments += ("--slices=2", f"--env-file={fakes.secrets}")
  dry = fakes.run("xpk.sh", *arguments, "--dry-run", *TRAIN)
  done = fakes.run("xpk.sh", *arguments, *TRAIN)
  assert done.returncode == 0, done.stderr
  assert fakes.calls() == commands(dry.stdout, "xpk")
  (call,) = fakes.calls()
  flags = dict(word.split("=", 1) for word in call[4:])
  assert (flags["--tpu-type"], flags["--num-slices"]) == ("v5litepod-256", "2")
  assert shlex.split(flags["--command"])[1:] == ["exec", "--slices=2", *TRAIN]
  ranges = [part.split("-") for part in flags["--restart-on-exit-codes"].split(",")]
  answered = {code for low, high in ranges for code in range(int(low), int(high) + 1)}
  assert answered == set(range(1, 127)) - {42, 43}  # 42 and 127 to 255 XPK adds of itself
  assert CANARY not in str(call)


def test_other_verbs_need_no_more_than_they_use(fakes):
  assert fakes.run("xpk.sh", "list", *PLACE).returncode == 0
  assert fakes.run("xpk.sh", "delete", "--name=eagle", *PLACE).returncode == 0
  listed, deleted = fakes.calls()
  assert listed == ["xpk", "workload", "list", *PLACE]
  assert deleted == ["xpk", "workload", "delete", "--workload=eagle", *PLACE, "--force"]
  assert "--name is missing" in fakes.run("xpk.sh", "delete", *PLACE).stderr
