// Package floor is what the kernel leaves of a fan-out server: one thread, one epoll descriptor, no log, no recovery, no
// slow-reader policy, and one gathering write per subscriber and pass. Whatever RayFlux costs above it is RayFlux's own.
//
// It understands just enough of the wire to run the scenarios of package bench: the upgrade on /ws and /subscribe,
// subscribe, publish and ping of the native protocols, POST /publish on a kept-alive connection. It trusts its clients and
// is no server for anybody else.
package floor
