// Command dhtserver is the DHT server of go-libp2p, set up as in Kubo. The benchmark `compare` measures it against
// dhtstore.
//
//	dhtserver -identity FILE -dir DIR -port PORT [-table FILE]
//
// As in Kubo 0.43.1, it is go-libp2p-kad-dht in server mode, with its own provider manager on leveldb without
// compression. The manager has a cache of 256 keys and writes announcements in batches of 256, which 0.42.2 brought
// back. Each batch is synced, the default of go-ds-leveldb. Peers' addresses are in memory.
//
// Four things differ from Kubo, all in Go's favour. There is no resource manager and no connection manager: their
// accounting costs CPU, and their limits would end the connections of a benchmark. There are no other protocols, and no
// metrics around the datastore. The address filter is off, because all traffic is on loopback. The routing table is not
// refreshed, so that it stays the same.
//
// Each line of the table's FILE is a peer of the routing table: its id, then its addresses. The command prints "ready
// N" once it listens and the table has N peers.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"

	leveldb "github.com/ipfs/go-ds-leveldb"
	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/multiformats/go-multiaddr"
	"github.com/syndtr/goleveldb/leveldb/opt"
)

func main() {
	identity := flag.String("identity", "", "file of the private key, in libp2p's protobuf")
	dir := flag.String("dir", "", "directory of the database")
	port := flag.Int("port", 0, "TCP and UDP port on loopback")
	table := flag.String("table", "", "file with the peers of the routing table")
	flag.Parse()
	if err := run(*identity, *dir, *port, *table); err != nil {
		log.Fatal(err)
	}
}

func run(identity, dir string, port int, table string) (err error) {
	bytes, err := os.ReadFile(identity)
	if err != nil {
		return err
	}
	key, err := crypto.UnmarshalPrivateKey(bytes)
	if err != nil {
		return err
	}
	records, err := leveldb.NewDatastore(dir, &leveldb.Options{Compression: opt.NoCompression})
	if err != nil {
		return err
	}
	defer func() {
		if closed := records.Close(); err == nil {
			err = closed
		}
	}()
	node, err := libp2p.New(
		libp2p.Identity(key),
		libp2p.ListenAddrStrings(
			fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port),
			fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", port),
		),
		libp2p.DisableRelay(),
		libp2p.ResourceManager(&network.NullResourceManager{}),
		libp2p.ConnectionManager(connmgr.NullConnMgr{}),
	)
	if err != nil {
		return err
	}
	defer node.Close()
	server, err := dht.New(
		node,
		dht.Concurrency(10),
		dht.Mode(dht.ModeServer),
		dht.Datastore(records),
		dht.DisableAutoRefresh(),
		dht.AddressFilter(nil),
	)
	if err != nil {
		return err
	}
	defer server.Close()
	if table != "" {
		if err := fill(node, server, table); err != nil {
			return err
		}
	}
	fmt.Println("ready", server.RoutingTable().Size())
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	<-ended
	return nil
}

func fill(node host.Host, server *dht.IpfsDHT, table string) error {
	file, err := os.Open(table)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		id, err := peer.Decode(words[0])
		if err != nil {
			return err
		}
		var addresses []multiaddr.Multiaddr
		for _, word := range words[1:] {
			address, err := multiaddr.NewMultiaddr(word)
			if err != nil {
				return err
			}
			addresses = append(addresses, address)
		}
		node.Peerstore().AddAddrs(id, addresses, peerstore.PermanentAddrTTL)
		if _, err := server.RoutingTable().TryAddPeer(id, false, true); err != nil {
			return err
		}
	}
	return lines.Err()
}
