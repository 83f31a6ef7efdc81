import dataclasses
import json

from eagle_jax import config
from eagle_jax.demo import results
from eagle_jax.demo.records import turns
from eagle_jax.demo.score import Score
from eagle_jax.train.stages import Row


def test_json_and_back():
  stage = results.Stage(
    stage="prealign",
    label="clip",
    losses=((1, 2.5), (2, 1.25)),
    parts=(Row("vision/clip", 7, 7, 5, 0.5),),
    batch_size=8,
    seconds=1.5,
  )
  sample = results.Sample(
    task="digits", image="a.png", question="q", truth="1", sighted="1", blind="2"
  )
  found = results.Results(
    title="t",
    origins={"language model": "x"},
    alone=results.Alone(
      difference=1e-5, limit=1e-3, reference="NumPy", exchanges=(("question", "answer"),)
    ),
    stages=(stage,),
    scores=(Score("digits", 3, 1.0, 0.0, 0.5, "2"),),
    samples=(sample,),
    seconds={"evaluation": 2.0},
    facts={"seed": "0"},
  )
  assert results.from_json(found.to_json()) == found


def test_a_runs_folder_is_read(tmp_path):
  row = Row("projector", 7, 7, 5, 1.0)
  experiment = config.Experiment(name="x", stage="pretrain", batch_size=16)
  (tmp_path / "config.json").write_text(experiment.to_json())
  (tmp_path / "parameters.json").write_text(json.dumps([dataclasses.asdict(row)]))
  lines = [{"step": 1, "loss": 2.5, "lr": 0.1}, {"step": 2, "loss": 1.5, "lr": 0.0}]
  (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  stage = results.read_stage(tmp_path, label="sighted", seconds=3.0)
  assert (stage.stage, stage.label, stage.batch_size) == ("pretrain", "sighted", 16)
  assert stage.losses == ((1, 2.5), (2, 1.5))
  assert stage.parts == (row,)


def test_samples_are_spread_over_every_task():
  test = [
    {
      "id": f"{task}-{n}",
      "task": task,
      "image": f"{task}-{n}.png",
      "conversations": turns("<image>\nRead it.", str(n)),
    }
    for task, count in (("a", 8), ("b", 1))
    for n in range(count)
  ]
  right = {record["id"]: record["conversations"][1]["value"] for record in test}
  wrong = dict.fromkeys(right, "x")
  chosen = results.samples(test, sighted=right, blind=wrong, each=4)
  assert [sample.image[:3] for sample in chosen] == ["a-0", "a-2", "a-4", "a-6", "b-0"]
  assert all(sample.sighted == sample.truth and sample.blind == "x" for sample in chosen)
  assert {sample.question for sample in chosen} == {"Read it."}
