from tests.launch.fakes import commands


def test_build_and_push_as_the_dry_run_says(fakes):
  for verb in ("build", "push"):
    arguments = (verb, "--image=host/eagle:1")
    dry = fakes.run("image.sh", *arguments, "--dry-run")
    assert fakes.run("image.sh", *arguments).returncode == 0
    assert fakes.calls()[-1:] == commands(dry.stdout, "docker")
  build, push = fakes.calls()
  assert build[-1] == str(fakes.project)
  assert f"--file={fakes.project}/launch/Dockerfile" in build
  assert push == ["docker", "push", "host/eagle:1"]


def test_a_mistake_is_told(fakes):
  done = fakes.run("image.sh", "build", "--image=i", "--python=3.9")
  assert (done.returncode, fakes.calls()) == (2, [])
  assert "--python must look like" in done.stderr
