package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"rayflux/balancer/cluster/zonetest"
)

// station is where one process of a cluster runs. It has a resolver of its own, by which the test decides where each name leads
// from here, and it may have a network of its own, whose one cable the test can pull. What there is of it in the kernel lives
// as long as a process that waits for this one to end, so that nothing is left behind.
type station struct {
	t       *testing.T
	zone    *zonetest.Zone
	near    netip.Addr // the first of the addresses that the test may listen on, and the process can reach: its resolver's
	far     netip.Addr // the first of the process's own
	resolv  string     // file that stands for its /etc/resolv.conf
	network int        // process that holds its network; 0: the test's own
}

const farAddresses = 40 // from near to far

// needStations skips a test where stations cannot be had.
func needStations(t *testing.T) {
	t.Helper()
	for _, program := range []string{"unshare", "nsenter", "ip", "mount"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("a process is to have a network and a resolver of its own, which takes %s: %v", program, err)
		}
	}
	if out, err := exec.Command("unshare", "--net", "--mount", "mount", "--bind", os.DevNull, "/etc/resolv.conf").CombinedOutput(); err != nil {
		t.Skipf("a process is to have a network and a resolver of its own, which this machine does not allow: %s", out)
	}
}

// newStation makes the i-th station of this test process. Addresses are those that nobody routes (100.64.0.0/10), or loopback's,
// and differ between test processes.
func newStation(t *testing.T, i int, networked bool) *station {
	t.Helper()
	pid := os.Getpid()
	s := &station{t: t, near: netip.AddrFrom4([4]byte{127, byte(pid >> 8), byte(pid), byte(64*(i%4) + 1)})}
	if networked {
		s.near = netip.AddrFrom4([4]byte{100, byte(64 + pid>>8&63), byte(pid), byte(64*(i%4) + 1)})
		s.enclose(fmt.Sprintf("rf%d-%d", pid, i))
	}
	s.far = s.address(farAddresses)
	s.zone = zonetest.Serve(t, netip.AddrPortFrom(s.near, 53).String())
	s.resolv = filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(s.resolv, fmt.Appendf(nil, "nameserver %s\n", s.near), 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

// address is the i-th behind near.
func (s *station) address(i int) netip.Addr {
	b := s.near.As4()
	b[3] += byte(i)
	return netip.AddrFrom4(b)
}

// enclose gives the station a network of its own, and a cable to it.
func (s *station) enclose(cable string) {
	s.t.Helper()
	holder := exec.Command("unshare", "--net", "sh", "-c", "echo; exec cat")
	hold, err := holder.StdinPipe() // ends with this process, and cat with it
	if err != nil {
		s.t.Fatal(err)
	}
	said, err := holder.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { hold.Close(); _ = holder.Wait() })
	if _, err := said.Read(make([]byte, 1)); err != nil { // from then on it has another network than the test
		s.t.Fatal(err)
	}
	s.network = holder.Process.Pid
	s.run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(s.network))
	var ours, theirs strings.Builder
	for i := range 16 {
		fmt.Fprintf(&ours, "address add %s/26 dev %s\n", s.address(i), cable)
	}
	for i := range 8 {
		fmt.Fprintf(&theirs, "address add %s/26 dev eth0\n", s.address(farAddresses+i))
	}
	fmt.Fprintf(&ours, "link set %s up\n", cable)
	fmt.Fprint(&theirs, "link set lo up\nlink set eth0 up\n")
	s.batch(ours.String(), "ip")
	s.batch(theirs.String(), s.inside("ip")...)
}

func (s *station) inside(args ...string) []string {
	return append([]string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", s.network)}, args...)
}

func (s *station) batch(lines string, ip ...string) {
	s.t.Helper()
	cmd := exec.Command(ip[0], append(ip[1:], "-batch", "-")...)
	cmd.Stdin = strings.NewReader(lines)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%q: %v: %s", ip, err, out)
	}
}

func (s *station) run(args ...string) {
	s.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		s.t.Fatalf("%q: %v: %s", args, err, out)
	}
}

// pull takes the cable out, or puts it back: what is sent then is lost, and no connection ends over it.
func (s *station) pull(out bool) {
	s.t.Helper()
	state := "up"
	if out {
		state = "down"
	}
	s.run(s.inside("ip", "link", "set", "eth0", state)...)
}

// shell is what startServer needs to start a process here.
func (s *station) shell() string {
	enter := ""
	if s.network != 0 {
		enter = strings.Join(s.inside(), " ")
	}
	return fmt.Sprintf(`exec %s unshare --mount sh -c 'mount --bind %s /etc/resolv.conf && exec "$0" "$@"' "$0" "$@"`, enter, s.resolv)
}

// finds makes a host's name lead to an address, seen from here.
func (s *station) finds(host string, at netip.Addr) {
	s.zone.Set(host, &dnsmessage.AResource{A: at.As4()})
}
