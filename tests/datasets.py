"""Records as their files hold them."""


def record(name, image, answer, question="<image>\nWhat is shown?"):
  """One record as its JSON object."""
  turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
  return {"id": name, "image": image, "conversations": turns}
