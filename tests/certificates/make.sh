#!/bin/sh
# Makes the certificates of the tests anew: an authority, a broker, a client, a proxy, an authority that nobody trusts,
# and the same proxy by that one.
# They are good for a hundred years and for nothing but tests on loopback: their keys are public.
set -eu
cd "$(dirname "$0")"
days=36500

authority() { # file name
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days $days -subj "/CN=$2" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign" \
        -keyout "$1.key" -out "$1.pem"
}

signed() { # file name purpose alternative-names [authority]
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$2" -keyout "$1.key" -out "$1.csr"
    printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=%s\nsubjectAltName=%s\n' "$3" "$4" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA "${5:-authority}.pem" -CAkey "${5:-authority}.key" -CAcreateserial -days $days \
        -extfile "$1.ext" -out "$1.pem"
    rm "$1.csr" "$1.ext"
}

authority authority "Teeline's test authority"
authority stranger "An authority that nobody trusts"
signed broker broker serverAuth "DNS:localhost,DNS:kafka.test"
signed client client clientAuth "DNS:client.test"
signed proxy proxy serverAuth "DNS:localhost,DNS:kafka.test,DNS:*.kafka.test"
signed proxy-by-stranger proxy serverAuth "DNS:localhost,DNS:kafka.test,DNS:*.kafka.test" stranger
# Kafka wants certificate and key in one file.
cat broker.key broker.pem >broker-with-key.pem
rm -f broker.key broker.pem authority.key stranger.key authority.srl stranger.srl
