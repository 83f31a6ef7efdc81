#!/usr/bin/env bash
# Builds and uploads the image that gke.sh and xpk.sh run.
#
#   launch/image.sh build --image=europe-docker.pkg.dev/project/repo/eagle:1
#   launch/image.sh push --image=europe-docker.pkg.dev/project/repo/eagle:1
#
#   --python 3.11   --extra tpu (or gpu)   --dry-run prints every command and runs none
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/base.sh"

flags=([image]='' [python]=3.11 [extra]=tpu)

verb=${1:---help}
[[ $verb != --help && $verb != -h ]] || { usage && exit 0; }
shift
read_flags "$@"
need image
match '3\.1[1-9]' python
match 'tpu|gpu' extra
case $verb in
  build)
    run docker build "--file=$launch/Dockerfile" "--tag=${flags[image]}" \
      "--build-arg=PYTHON=${flags[python]}" "--build-arg=EXTRA=${flags[extra]}" "$root"
    ;;
  push) run docker push "${flags[image]}" ;;
  *) fail "has no verb '$verb'. Verbs: build push" ;;
esac
