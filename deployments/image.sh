#!/bin/sh
# image.sh NAME:TAG [ARCHIVE]: builds the image with whichever of docker, podman and buildah works here (BUILDER names one),
# and tells its size. With ARCHIVE it is saved there as well, for "ctr images import" or "minikube image load".
#
# The binary is built by this machine's Go and takes the place of the Dockerfile's stage "build": no base image is
# pulled, and Go's cache is used, so that it takes seconds. What comes out is the same: the build is static, with -trimpath.
set -eu
name=${1:?usage: image.sh NAME:TAG [ARCHIVE]} archive=${2:-}
version=${VERSION:-dev}
cd "$(dirname "$0")/.."

# A docker client without its daemon, as some machines have, is no builder.
works() {
	case $1 in
	docker) docker buildx version && docker info ;;
	*) command -v "$1" ;;
	esac >/dev/null 2>&1
}
for candidate in ${BUILDER:-docker podman buildah}; do
	if works "$candidate"; then
		builder=$candidate
		break
	fi
done
[ -n "${builder:-}" ] || { echo "image.sh: none of ${BUILDER:-docker, podman and buildah} works here" >&2; exit 1; }

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
CGO_ENABLED=0 GOOS=linux "${GO:-go}" build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" -o "$context/rayflux" .

set -- --build-context "build=$context" --file deployments/Dockerfile --tag "$name" "$context"
case $builder in
docker)
	docker buildx build --load --quiet "$@" >/dev/null
	size=$(docker save "$name" | gzip | wc -c)
	[ -z "$archive" ] || docker save --output "$archive" "$name"
	;;
podman)
	podman build --quiet "$@" >/dev/null
	size=$(podman save --format docker-archive "$name" | gzip | wc -c)
	[ -z "$archive" ] || podman save --quiet --format docker-archive --output "$archive" "$name"
	;;
buildah)
	# Without a user namespace of its own, and on a file system that has no overlays, as in a container.
	export STORAGE_DRIVER="${STORAGE_DRIVER:-vfs}"
	buildah build --quiet --isolation chroot "$@" >/dev/null
	rm -f "$context/image"
	buildah push --quiet --disable-compression "$name" "docker-archive:$context/image:$name"
	size=$(gzip -c "$context/image" | wc -c)
	[ -z "$archive" ] || mv "$context/image" "$archive"
	;;
esac
awk -v name="$name" -v builder="$builder" -v size="$size" 'BEGIN { printf "%s: %.1f MB compressed, by %s\n", name, size / 1e6, builder }'
