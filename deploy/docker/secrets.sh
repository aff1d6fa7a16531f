#!/bin/sh
# Makes the secrets of an installation, each a file; leaves alone what is there. Usage: secrets.sh [FOLDER]
set -eu
folder=${1:-$(dirname "$0")/secrets}
umask 077
mkdir -p "$folder"
for name in database_password installation_secret operator_key grafana_password; do
    file=$folder/$name
    [ -s "$file" ] && continue
    # 256 random bits as 64 letters; written beside and renamed, so that no half a secret is ever taken for one.
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$file.new"
    mv "$file.new" "$file"
    echo "made $file"
done
# The folder is its owner's alone. In containers, which run as other users, each sees only the files it is given.
chmod 0700 "$folder"
chmod 0444 "$folder"/database_password "$folder"/installation_secret "$folder"/operator_key "$folder"/grafana_password
