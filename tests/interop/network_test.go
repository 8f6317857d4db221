package interop

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

const bridge = "dhtstore0"

// numbers holds the free host numbers, the next one first. A number is in the host's name, and is the last byte of its
// address. A number that was used goes to the end, so that nodes that remember its address seldom meet it again.
var numbers = func() []int {
	all := make([]int, lastHost)
	for n := range all {
		all[n] = n + 1
	}
	return all
}()

// The last host number. The addresses after it are for this process (own_host_test.go), for a router that does not
// exist, and for the broadcast address.
const lastHost = 249

// host is a network namespace on the bridge. Kubo's LAN DHT needs private addresses that are not loopback.
type host struct {
	name, ip string
}

// prepareNetwork makes the mounts and the bridge. It is called once, inside the new namespaces.
func prepareNetwork() error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	// `ip netns` keeps its names in /run.
	if err := syscall.Mount("none", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	if err := os.Mkdir("/run/netns", 0o755); err != nil {
		return err
	}
	if err := ip("link set lo up"); err != nil {
		return err
	}
	if err := ip("link add " + bridge + " type bridge"); err != nil {
		return err
	}
	return ip("link set " + bridge + " up")
}

func ip(arguments string) error {
	command := exec.Command("ip", strings.Fields(arguments)...)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", arguments, err, out)
	}
	return nil
}

// newHost adds a host to the network until the test ends.
func newHost(t *testing.T) host {
	t.Helper()
	if len(numbers) == 0 {
		t.Fatalf("more than %d hosts at a time", lastHost)
	}
	number := numbers[0]
	numbers = numbers[1:]
	h := host{name: fmt.Sprintf("host%d", number), ip: fmt.Sprintf("10.87.0.%d", number)}
	veth := fmt.Sprintf("veth%d", number)
	for _, arguments := range []string{
		"netns add " + h.name,
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", veth, h.name),
		fmt.Sprintf("link set %s master %s up", veth, bridge),
		"-n " + h.name + " addr add " + h.ip + "/24 dev eth0",
		"-n " + h.name + " link set lo up",
		"-n " + h.name + " link set eth0 up",
		// A real host has a default route. This one leads to an address that does not exist.
		"-n " + h.name + " route add default via 10.87.0.254",
	} {
		if err := ip(arguments); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		// Deleting the namespace also removes its end of the link, but not at once.
		for _, arguments := range []string{"link delete " + veth, "netns delete " + h.name} {
			if err := ip(arguments); err != nil {
				t.Error(err)
			}
		}
		numbers = append(numbers, number)
	})
	return h
}

// command returns a command that runs on this host.
func (h host) command(program string, arguments ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", h.name, program}, arguments...)...)
}
