// Package k8s finds the nodes of a cluster by asking Kubernetes: the pods behind a headless service. Of RayFlux it alone
// imports client-go.
//
// # The one idea
//
// Two lists are followed, and a third is made of them. The service's EndpointSlices say which pods there are, where, and
// whether each is well or going away; the StatefulSet of the same name says how many there ought to be. A pod's ordinal is
// its slot, so a pod that is missing leaves its slot empty and moves nobody else's topics, be it the last one.
//
// # Threads
//
// Each list is followed by a goroutine of its own (feed), which ends with the context of the source's first Next. They
// meet in the source, under its lock.
package k8s
